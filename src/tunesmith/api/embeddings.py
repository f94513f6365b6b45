"""Embeddings over HTTP: `POST /v1/embeddings`."""

import base64
from array import array
from typing import Annotated, Any, Final, Literal, cast

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from tunesmith.api.chat import CLIENT_LEFT, unless_gone
from tunesmith.api.deps import Caller, Served
from tunesmith.api.rates import Rate
from tunesmith.api.wire import Text, WireRequest, shown
from tunesmith.core.errors import InvalidRequest

router = APIRouter(prefix="/v1/embeddings", tags=["Embeddings"])

N_MAX_INPUTS: Final = 2048


class CreateEmbedding(WireRequest):
    """The body: texts, or tokens of the model's own tokenizer. `user` only steers OpenAI's own operation."""

    model: Text
    input: Any
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None

    def inputs(self) -> list[str] | list[list[int]]:
        """Return the texts, or the lists of tokens.

        Raises:
            InvalidRequest: they are neither, too many, or empty.
        """
        given = self.input
        several: list[Any] = cast("list[Any]", given) if isinstance(given, list) else [given]
        if several and all(map(_is_token, several)):
            several = [several]
        of_tokens = all(isinstance(each, list) and all(map(_is_token, cast("list[Any]", each))) for each in several)
        if not several or not (of_tokens or all(isinstance(each, str) for each in several)):
            raise InvalidRequest(
                f"'input' must be a text, a list of texts, a list of tokens, or a list of such lists (got {shown(given)}).",
                param="input",
            )
        if len(several) > N_MAX_INPUTS:
            raise InvalidRequest(f"'input' has {len(several)} inputs: send at most {N_MAX_INPUTS}.", param="input")
        for place, each in enumerate(several):
            if not each:
                raise InvalidRequest(f"'input' cannot hold an empty text or list (input {place}).", param="input")
            if isinstance(each, str) and any("\ud800" <= character <= "\udfff" for character in each):
                raise InvalidRequest(f"'input' holds half of a surrogate pair and no text (input {place}).", param="input")
        return several


@router.post("")
async def create_embeddings(body: CreateEmbedding, request: Request, served: Served, caller: Caller, rate: Rate) -> Response:
    """Make vectors of texts."""
    inputs = body.inputs()
    await rate.enter(body.model)
    made = await unless_gone(
        request.receive,
        served.embeddings.embed(body.model, inputs, dimensions=body.dimensions, project=caller.scope.project_id),
    )
    if made is None:
        return Response(status_code=CLIENT_LEFT)
    rate.used(made.n_tokens)
    in_base64 = body.encoding_format == "base64"
    rows = [
        {"object": "embedding", "index": index, "embedding": _base64(vector) if in_base64 else list(vector)}
        for index, vector in enumerate(made.vectors)
    ]
    usage = {"prompt_tokens": made.n_tokens, "total_tokens": made.n_tokens}
    return JSONResponse({"object": "list", "data": rows, "model": body.model, "usage": usage})


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _base64(vector: Any) -> str:
    return base64.b64encode(array("f", vector).tobytes()).decode()
