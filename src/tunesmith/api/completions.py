"""Bare completions over HTTP: `POST /v1/completions`, whole or as server-sent events, as chat completions are."""

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import structlog
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from tunesmith.api.chat import CLIENT_LEFT, LEAST_LOGPROB, EventStream, begun, refuse_key, unless_gone, wire_usage
from tunesmith.api.completions_schema import CreateCompletion
from tunesmith.api.deps import Caller, Served
from tunesmith.api.once import Repeatable
from tunesmith.api.rates import Rate
from tunesmith.core.errors import ApiError
from tunesmith.data.answers import Delta
from tunesmith.data.vocabulary import TokenLogprob
from tunesmith.services.chat import Answer
from tunesmith.services.completions import CompletionRequest

router = APIRouter(prefix="/v1/completions", tags=["Completions"])
log = structlog.get_logger()


@dataclass(slots=True)
class _Choice:
    """One choice as it grows."""

    texts: list[str] = field(default_factory=list[str])
    tokens: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    finish_reason: str | None = None


@router.post("")
async def create_completion(
    body: CreateCompletion, request: Request, served: Served, caller: Caller, once: Repeatable, rate: Rate
) -> Response:
    """Go on from a text."""
    if body.stream:
        refuse_key(once)
    wanted = body.checked()
    await rate.enter(wanted.model, (wanted.max_tokens or 0) * wanted.n * len(wanted.prompts))
    answer = await served.bare.answer(caller.scope, wanted)
    rate.answers(answer)
    if body.stream:
        include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        deltas = await unless_gone(request.receive, begun(answer.deltas))
        if deltas is None:
            return Response(status_code=CLIENT_LEFT)
        return EventStream(_chunks(answer, deltas, wanted, include_usage=include_usage))
    whole = await unless_gone(request.receive, _whole(answer, wanted))
    return Response(status_code=CLIENT_LEFT) if whole is None else JSONResponse(whole)


async def _whole(answer: Answer, wanted: CompletionRequest) -> dict[str, Any]:
    choices = [_Choice() for _ in range(len(wanted.prompts) * wanted.n)]
    async with aclosing(answer.deltas) as deltas:
        async for delta in deltas:
            choice = choices[delta.index]
            choice.texts.append(delta.text)
            choice.tokens += delta.logprobs
            choice.finish_reason = delta.finish_reason or choice.finish_reason
    told = [
        _wire_choice(index, "".join(each.texts), each.tokens, each.finish_reason, wanted)
        for index, each in enumerate(choices)
    ]
    return {**_envelope(answer), "choices": told, "usage": wire_usage(answer)}


async def _chunks(
    answer: Answer, deltas: AsyncGenerator[Delta], wanted: CompletionRequest, *, include_usage: bool
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the chunks of a stream; what goes wrong in the middle is a last chunk with `error`."""
    envelope = _envelope(answer)
    usage: dict[str, Any] = {"usage": None} if include_usage else {}
    try:
        async with aclosing(deltas):
            async for delta in deltas:
                choice = _wire_choice(delta.index, delta.text, delta.logprobs, delta.finish_reason, wanted)
                yield {**envelope, "choices": [choice], **usage}
    except ApiError as error:
        log.warning("completion.broken", id=answer.id, reason=error.message)
        yield error.body()
        return
    if include_usage:
        yield {**envelope, "choices": [], "usage": wire_usage(answer)}


def _envelope(answer: Answer) -> dict[str, Any]:
    return {
        "id": answer.id,
        "object": "text_completion",
        "created": int(answer.created_at),
        "model": answer.model,
        "system_fingerprint": answer.fingerprint,
    }


def _wire_choice(
    index: int, text: str, tokens: Sequence[TokenLogprob], finish_reason: str | None, wanted: CompletionRequest
) -> dict[str, Any]:
    logprobs = None if wanted.logprobs is None else _wire_logprobs(tokens, with_top=wanted.logprobs > 0)
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason}


def _wire_logprobs(tokens: Sequence[TokenLogprob], *, with_top: bool) -> dict[str, Any]:
    return {
        "tokens": [_name(token) for token in tokens],
        "token_logprobs": [_logprob(token) for token in tokens],
        "top_logprobs": [_top(token) for token in tokens] if with_top else None,
        "text_offset": [token.start for token in tokens],
    }


def _top(token: TokenLogprob) -> dict[str, float | None] | None:
    """Return the likeliest tokens and the one that was taken; null for the first of a text."""
    if math.isnan(token.logprob):
        return None
    return {_name(each): _logprob(each) for each in (token, *token.top)}


def _name(token: TokenLogprob) -> str:
    """Return a token as text, or its bytes where they are no whole characters."""
    try:
        return token.bytes.decode()
    except UnicodeDecodeError:
        return f"bytes:{token.text}"


def _logprob(token: TokenLogprob) -> float | None:
    return None if math.isnan(token.logprob) else max(token.logprob, LEAST_LOGPROB)
