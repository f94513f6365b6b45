"""Chat completions over HTTP: `POST /v1/chat/completions`, whole or as server-sent events.

The first delta is awaited before the status is sent, so that a model that cannot be loaded is an HTTP error. A client that
leaves stops its generation at the next token, in either form.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeAlias, TypeVar

import structlog
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tunesmith.api.chat_schema import CreateChatCompletion
from tunesmith.api.completions_kept import stored
from tunesmith.api.deps import Caller, Served
from tunesmith.api.once import Repeatable
from tunesmith.api.rates import Rate
from tunesmith.core.errors import ApiError, InvalidRequest
from tunesmith.data.answers import Delta, Said
from tunesmith.data.calls import CallPart, ToolCall
from tunesmith.data.vocabulary import TokenLogprob
from tunesmith.services.chat import Answer, ChatRequest

router = APIRouter(prefix="/v1/chat/completions", tags=["Chat"])
log = structlog.get_logger()

#: nginx's own word for a request whose client is gone; nobody reads it.
CLIENT_LEFT: Final = 499
#: What is told in place of a log-probability that JSON cannot write.
LEAST_LOGPROB: Final = -9999.0

Result = TypeVar("Result")
#: Stores an answer that is whole.
Keep: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]


@router.post("")
async def create_chat_completion(
    body: CreateChatCompletion, request: Request, served: Served, caller: Caller, once: Repeatable, rate: Rate
) -> Response:
    """Answer a conversation."""
    if body.stream:
        refuse_key(once)
    wanted = body.checked()
    await rate.enter(wanted.model, (wanted.max_tokens or 0) * wanted.n)
    answer = await served.chat.answer(caller.scope, wanted)
    rate.answers(answer)
    keep = _keeper(body, request, served, caller, answer, once) if body.store else None
    if body.stream:
        include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        deltas = await unless_gone(request.receive, begun(answer.deltas))
        if deltas is None:
            return Response(status_code=CLIENT_LEFT)
        return EventStream(chunks_of(answer, deltas, wanted, include_usage=include_usage, keep=keep))
    whole = await unless_gone(request.receive, whole_of(answer, wanted, keep))
    return Response(status_code=CLIENT_LEFT) if whole is None else JSONResponse(whole)


def refuse_key(once: Repeatable) -> None:
    """Refuse a stream that has an `Idempotency-Key`."""
    if once is not None:
        once.refused()
        raise InvalidRequest(
            "A streamed answer is not kept, so it cannot have an Idempotency-Key: leave the header or 'stream' out.",
            param="Idempotency-Key",
        )


def _keeper(
    body: CreateChatCompletion, request: Request, served: Served, caller: Caller, answer: Answer, once: Repeatable
) -> Keep:
    """Return what stores the answer once it is whole."""

    async def keep(whole: dict[str, Any]) -> None:
        completion = stored(body, request, caller.scope, answer, whole)
        also = None if once is None else once.also(lambda _: whole)
        await run_in_threadpool(served.completions.keep, caller.scope, completion, also=also)

    return keep


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result | None:
    """Return what the work returns, or None when the client left first; the work is cancelled then."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait({working})


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def whole_of(answer: Answer, wanted: ChatRequest, keep: Keep | None) -> dict[str, Any]:
    """Return the completion once it is whole."""
    choices = [Said() for _ in range(wanted.n)]
    async with aclosing(answer.deltas) as deltas:
        async for delta in deltas:
            choices[delta.index].add(delta)
    whole = _wire_completion(answer, choices, wanted)
    if keep is not None:
        await keep(whole)
    return whole


def _wire_completion(answer: Answer, choices: list[Said], wanted: ChatRequest) -> dict[str, Any]:
    return {
        "id": answer.id,
        "object": "chat.completion",
        "created": int(answer.created_at),
        "model": answer.model,
        "choices": [_wire_choice(index, choice, wanted) for index, choice in enumerate(choices)],
        "usage": wire_usage(answer),
        "service_tier": "default",
        "system_fingerprint": answer.fingerprint,
    }


def _wire_choice(index: int, choice: Said, wanted: ChatRequest) -> dict[str, Any]:
    text, reasoning, refusal = choice.text, "".join(choice.reasoning), "".join(choice.refusals)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text if text or not (choice.tool_calls or refusal) else None,
        "refusal": refusal or None,
        "annotations": [],
    }
    if reasoning:
        message["reasoning_content"] = reasoning
    calls = [_wire_call(call) for call in choice.tool_calls]
    if calls:
        message |= {"function_call": calls[0]["function"]} if wanted.old_functions else {"tool_calls": calls}
    scores = _wire_logprobs(choice.logprobs or None) if wanted.logprobs else None
    reason = _wire_reason(choice.finish_reason, wanted)
    return {"index": index, "message": message, "logprobs": scores, "finish_reason": reason}


def _wire_reason(reason: str | None, wanted: ChatRequest) -> str | None:
    return "function_call" if wanted.old_functions and reason == "tool_calls" else reason


def _wire_logprobs(tokens: Sequence[TokenLogprob] | None) -> dict[str, Any]:
    content = (
        None if tokens is None else [{**wire_token(each), "top_logprobs": [*map(wire_token, each.top)]} for each in tokens]
    )
    return {"content": content, "refusal": None}


def wire_token(token: TokenLogprob) -> dict[str, Any]:
    """Return a token's object, without those beside it."""
    return {"token": token.text, "logprob": max(token.logprob, LEAST_LOGPROB), "bytes": list(token.bytes)}


def _wire_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _wire_part(part: CallPart) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": part.arguments}
    if part.name is None:
        return {"index": part.index, "function": function}
    return {"index": part.index, "id": part.id, "type": "function", "function": {"name": part.name, **function}}


def wire_usage(answer: Answer) -> dict[str, Any]:
    """Return the usage object of an answer as far as it has come."""
    n_prompt, n_completion = answer.n_prompt_tokens, answer.n_completion_tokens
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_completion,
        "total_tokens": n_prompt + n_completion,
        "prompt_tokens_details": {"cached_tokens": answer.n_cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": answer.n_reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


async def begun(deltas: AsyncGenerator[Delta]) -> AsyncGenerator[Delta]:
    """Await the first delta and return a generator that yields it and then the others."""
    first = await anext(deltas, None)

    async def all_of_them() -> AsyncGenerator[Delta]:
        async with aclosing(deltas):
            if first is not None:
                yield first
            async for delta in deltas:
                yield delta

    return all_of_them()


async def chunks_of(
    answer: Answer, deltas: AsyncGenerator[Delta], wanted: ChatRequest, *, include_usage: bool, keep: Keep | None
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the chunks of a stream; what goes wrong in the middle is a last chunk with `error`.

    It is stored after the last token and before the end of the stream, so that whoever has read the end finds it stored.
    """
    envelope: dict[str, Any] = {
        "id": answer.id,
        "object": "chat.completion.chunk",
        "created": int(answer.created_at),
        "model": answer.model,
        "service_tier": "default",
        "system_fingerprint": answer.fingerprint,
    }
    usage: dict[str, Any] = {"usage": None} if include_usage else {}
    opening = {"role": "assistant", "content": "", "refusal": None}
    choices = [Said() for _ in range(wanted.n)]
    try:
        async with aclosing(deltas):
            for index in range(wanted.n):
                logprobs = _wire_logprobs(()) if wanted.logprobs else None
                yield {**envelope, "choices": [_wire_delta(index, opening, logprobs=logprobs)], **usage}
            async for delta in deltas:
                choices[delta.index].add(delta)
                parts = {"content": delta.text, "reasoning_content": delta.reasoning, "refusal": delta.refusal}
                said: dict[str, Any] = {name: text for name, text in parts.items() if text}
                if delta.tool_call is not None:
                    part = _wire_part(delta.tool_call)
                    said |= {"function_call": part["function"]} if wanted.old_functions else {"tool_calls": [part]}
                logprobs = _wire_logprobs(delta.logprobs) if delta.logprobs else None
                choice = _wire_delta(delta.index, said, _wire_reason(delta.finish_reason, wanted), logprobs=logprobs)
                yield {**envelope, "choices": [choice], **usage}
        if include_usage:
            yield {**envelope, "choices": [], "usage": wire_usage(answer)}
        if keep is not None:
            await keep(_wire_completion(answer, choices, wanted))
    except ApiError as error:
        log.warning("chat.broken", id=answer.id, reason=error.message)
        yield error.body()


def _wire_delta(
    index: int, delta: dict[str, Any], finish_reason: str | None = None, *, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


class EventStream(Response):
    """Server-sent events from a generator that is closed as soon as the client is gone."""

    media_type = "text/event-stream"
    #: What stands behind the last event.
    end = b"data: [DONE]\n\n"

    def __init__(self, chunks: AsyncGenerator[dict[str, Any]]) -> None:
        self._chunks = chunks
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send the events while watching for the client's leave."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        done = await unless_gone(receive, self._send_all(send))
        if done:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> bool:
        async with aclosing(self._chunks) as chunks:
            try:
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": self.rendered(chunk), "more_body": True})
            except OSError:
                return False
        await send({"type": "http.response.body", "body": self.end, "more_body": True})
        return True

    def rendered(self, chunk: dict[str, Any]) -> bytes:
        """Return an event as it is sent."""
        return b"data: " + json.dumps(chunk, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"
