"""Several models' answers side by side, `POST /tunesmith/v1/compare`: base and tuned, or two checkpoints, at the same time.

The body is a chat completion's with `models` in place of `model`; every model is asked with the same seed.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse, Response

from tunesmith.api.chat import CLIENT_LEFT, EventStream, begun, chunks_of, unless_gone, whole_of
from tunesmith.api.chat_schema import CreateChatCompletion
from tunesmith.api.deps import Caller, Served
from tunesmith.api.once import Repeatable
from tunesmith.api.rates import Rate
from tunesmith.api.wire import Text, WireRequest
from tunesmith.core.errors import InvalidRequest
from tunesmith.data.answers import Delta
from tunesmith.services.chat import Answer, ChatRequest

router = APIRouter(tags=["Compare"])


class Compare(WireRequest):
    """The models; all other fields are those of a chat completion, and checked as such."""

    model_config = ConfigDict(extra="allow")

    models: Annotated[list[Text], Field(min_length=2, max_length=4)]

    def asked(self, seed: int) -> list[CreateChatCompletion]:
        """Return the chat completion that each model is asked for.

        Raises:
            InvalidRequest: a field has no place here.
            RequestValidationError: one is not as chat completions have it.
        """
        fields = dict(self.model_extra or {})
        if "model" in fields:
            raise InvalidRequest("'models' names the models: leave 'model' out.", param="model")
        for name in ("store", "metadata"):
            if fields.get(name):
                raise InvalidRequest(f"A comparison is not stored: leave '{name}' out.", param=name)
        if fields.get("seed") is None:
            fields["seed"] = seed
        try:
            return [CreateChatCompletion.model_validate({**fields, "model": model}) for model in self.models]
        except ValidationError as error:
            found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
            raise RequestValidationError(found, body=fields) from error


@router.post("/tunesmith/v1/compare")
async def compare(body: Compare, request: Request, served: Served, caller: Caller, once: Repeatable, rate: Rate) -> Response:
    """Answer a conversation with each of the models."""
    asked = body.asked(served.ids.seed())
    stream = bool(asked[0].stream)
    if stream and once is not None:
        once.refused()
        raise InvalidRequest(
            "A streamed answer is not kept, so it cannot have an Idempotency-Key: leave the header or 'stream' out.",
            param="Idempotency-Key",
        )
    wanted = [each.checked() for each in asked]
    for each in wanted:
        await rate.enter(each.model, (each.max_tokens or 0) * each.n)
    answers = [await served.chat.answer(caller.scope, each) for each in wanted]
    rate.answers(*answers)
    if stream:
        options = asked[0].stream_options
        include_usage = options is not None and bool(options.include_usage)
        all_deltas = await unless_gone(request.receive, _together([begun(answer.deltas) for answer in answers]))
        if all_deltas is None:
            return Response(status_code=CLIENT_LEFT)
        return EventStream(_side_by_side(answers, all_deltas, wanted, include_usage=include_usage))
    whole = await unless_gone(
        request.receive,
        _together([whole_of(answer, each, None) for answer, each in zip(answers, wanted, strict=True)]),
    )
    if whole is None:
        return Response(status_code=CLIENT_LEFT)
    data = [
        {"index": index, "model": answer.model, "completion": completion}
        for index, (answer, completion) in enumerate(zip(answers, whole, strict=True))
    ]
    return JSONResponse({"object": "tunesmith.comparison", "seed": asked[0].seed, "data": data})


async def _together(work: Sequence[Any]) -> list[Any]:
    """Return what all give, or raise the first failure once the others are ended."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _side_by_side(
    answers: Sequence[Answer],
    all_deltas: Sequence[AsyncGenerator[Delta]],
    wanted: Sequence[ChatRequest],
    *,
    include_usage: bool,
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the chunks of all answers as they come, each with its model's index; one that fails leaves the others alone."""
    news: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(maxsize=64)

    async def tell(index: int) -> None:
        answer = answers[index]
        chunks = chunks_of(answer, all_deltas[index], wanted[index], include_usage=include_usage, keep=None)
        async with aclosing(chunks):
            async for chunk in chunks:
                said = {"error": chunk["error"]} if "error" in chunk else {"chunk": chunk}
                await news.put({"index": index, "model": answer.model, **said})
        await news.put(None)

    tasks = [asyncio.ensure_future(tell(index)) for index in range(len(answers))]
    try:
        n_open = len(tasks)
        while n_open:
            item = await news.get()
            if item is None:
                n_open -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for deltas in all_deltas:
            await deltas.aclose()
