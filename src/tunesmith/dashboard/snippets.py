"""A request to create a job as a person would write it: Python with the openai package, and curl."""

import json
from collections.abc import Mapping
from typing import Any


def python(base_url: str, body: Mapping[str, Any]) -> str:
    """Return the request as Python."""
    arguments = "".join(f"    {name}={value!r},\n" for name, value in body.items())
    return (
        "from openai import OpenAI\n\n"
        f"client = OpenAI(base_url={base_url!r})\n"
        f"job = client.fine_tuning.jobs.create(\n{arguments})\n"
        "print(job.id, job.status)\n"
    )


def curl(base_url: str, body: Mapping[str, Any]) -> str:
    """Return the request as a shell command."""
    text = json.dumps(body, indent=2, ensure_ascii=False).replace("'", "'\\''")
    return (
        f"curl {base_url}/fine_tuning/jobs \\\n"
        '  -H "Authorization: Bearer $OPENAI_API_KEY" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d '{text}'\n"
    )


def request(
    method: str,
    *,
    hyperparameters: Mapping[str, Any],
    grader: Mapping[str, Any] | None,
    **others: Any,
) -> dict[str, Any]:
    """Return the body of the request; what is None or empty was left to the server and is left out."""
    block: dict[str, Any] = {"hyperparameters": dict(hyperparameters)} if hyperparameters else {}
    if grader is not None:
        block["grader"] = dict(grader)
    body = {name: value for name, value in others.items() if value is not None and value not in ("", {})}
    return {**body, "method": {"type": method, **({method: block} if block else {})}}
