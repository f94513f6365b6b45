"""Counting what a response would be asked over HTTP: `POST /v1/responses/input_tokens`, nothing computed or stored."""

from typing import Any

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response

from tunesmith.api.deps import Caller, Served, answers_only
from tunesmith.api.responses_schema import CreateResponse, Prompted
from tunesmith.api.wire import Text, shown
from tunesmith.core.errors import NotAvailable

router = APIRouter(tags=["Responses"])


class CountTokens(Prompted):
    """The body: what of a response's create says what the model reads."""

    personality: Text | None = None


@router.post("/v1/responses/input_tokens", dependencies=[Depends(answers_only)])
async def count_input_tokens(body: CountTokens, served: Served, caller: Caller) -> Response:
    """Count the tokens of the prompt that a response with these fields would be answered from."""
    if body.personality is not None:
        raise NotAvailable(
            f"'personality' {shown(body.personality)} is not available in this release: say it as 'instructions'.",
            param="personality",
        )
    said: dict[str, Any] = body.model_dump(by_alias=True, exclude_unset=True, exclude={"personality"})
    wanted = CreateResponse.model_validate(said).checked(served.ids)
    n_tokens = await served.responses.count(caller.scope, wanted)
    return JSONResponse({"object": "response.input_tokens", "input_tokens": n_tokens})
