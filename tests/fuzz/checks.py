"""What every answer to a made-up request has to keep to; Schemathesis loads this file by the variable SCHEMATHESIS_HOOKS."""

from typing import Any

import schemathesis

ERROR = {"message", "type", "param", "code"}


@schemathesis.check
def says_it_as_openai_does(ctx: Any, response: Any, case: Any) -> None:
    """Fail on a refusal whose body is not OpenAI's error object."""
    if response.status_code < 400 or case.method.upper() == "HEAD":
        return
    told = response.json()
    assert set(told) == {"error"}, f"{response.status_code} without an error object: {told}"
    error = told["error"]
    assert set(error) >= ERROR, f"an error lacks {ERROR - set(error)}: {error}"
    assert isinstance(error["message"], str)
    assert error["message"], "an error says nothing"
    assert isinstance(error["type"], str), error
    assert all(error[name] is None or isinstance(error[name], str) for name in ("param", "code")), error
