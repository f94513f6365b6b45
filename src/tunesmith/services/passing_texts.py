"""Bare completions of models upstream: a request as their server takes it, and the chunks of its answer as deltas."""

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from tunesmith.core.clock import Clock
from tunesmith.core.errors import BadGateway, NotAvailable
from tunesmith.core.ids import Ids
from tunesmith.data.answers import Delta
from tunesmith.data.vocabulary import TokenLogprob
from tunesmith.domain.model import Base
from tunesmith.domain.ports import Adapter, UpstreamFailed
from tunesmith.services.asking import Asking, Number, Told
from tunesmith.services.chat import Answer
from tunesmith.services.completions import CompletionRequest
from tunesmith.services.passing import FINISHES, fingerprint_of
from tunesmith.services.upstreams import failed

PATH: Final = "completions"


class _Logprobs(BaseModel):
    """The tokens of a text; an entry is null for the first one of all."""

    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float | None] | None] | None = None
    text_offset: list[int] = []

    def scored(self) -> tuple[TokenLogprob, ...]:
        tops = self.top_logprobs or [None] * len(self.tokens)
        rows = zip(self.tokens, self.token_logprobs, tops, self.text_offset, strict=True)
        return tuple(
            TokenLogprob(_raw(token), _number(logprob), tuple(TokenLogprob(_raw(a), _number(b)) for a, b in _pairs(top)), at)
            for token, logprob, top, at in rows
        )


class _Part(BaseModel):
    """What a chunk adds to a choice."""

    index: Number = 0
    text: str = ""
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Chunk(Told):
    choices: list[_Part] | None = None


@dataclass(frozen=True, slots=True)
class PassingTexts:
    """What `Completions` needs of models upstream."""

    asking: Asking
    clock: Clock
    ids: Ids

    def answer(self, base: Base, request: CompletionRequest, adapter: Adapter | None = None) -> Answer:
        """Return the answer of a model upstream, or of an adapter on it, which nobody has asked for yet.

        Raises:
            NotAvailable: `best_of` asks for more than is told, which servers pass over in silence.
        """
        there = base.upstream
        assert there is not None
        if request.best_of > request.n:
            raise NotAvailable(
                f"'best_of' {request.best_of}, which is greater than 'n', does not pass on to the server {base.url} of "
                f"{request.model} in this release: ask for 'n' {request.best_of} with 'logprobs', and take the best.",
                param="best_of",
            )
        body = {"model": there.model, "prompt": _prompt(request), **_wishes(request)}
        if base.tunable:  # as the bases of this server do; vLLM would take what the model's folder recommends
            body = {"temperature": 1.0, "top_p": 1.0, **body}
        answer = Answer(
            id=self.ids.completion(),
            created_at=self.clock.now(),
            model=request.model,
            n_prompt_tokens=0,
            fingerprint=fingerprint_of(base, adapter),
            deltas=_nothing(),
        )
        chunks = self.asking.chunks(base, PATH, body, adapter)
        answer.deltas = _deltas(base, chunks, len(request.prompts) * request.n, answer)
        return answer


async def _deltas(base: Base, said: AsyncGenerator[dict[str, Any]], n: int, answer: Answer) -> AsyncGenerator[Delta]:
    ended = [False] * n
    try:
        async with aclosing(said) as chunks:
            async for raw in chunks:
                chunk = _Chunk.model_validate(raw)
                chunk.note(answer)
                for part in chunk.choices or []:
                    reason = None if ended[part.index] else part.finish_reason
                    ended[part.index] = ended[part.index] or bool(reason)
                    if reason and reason not in FINISHES:
                        reason = "stop"
                    scores = () if part.logprobs is None else part.logprobs.scored()
                    if part.text or scores or reason:
                        yield Delta(part.index, text=part.text, finish_reason=reason, logprobs=scores)
    except UpstreamFailed as failure:
        raise failed(base, failure) from failure
    except (ValidationError, IndexError, ValueError) as error:
        raise BadGateway(f"The server of {base.name} answers what is no chunk of a completion.") from error
    if not all(ended):
        raise BadGateway(f"The server of {base.name} ended its answer in the middle. Send the request again.")


def _prompt(request: CompletionRequest) -> object:
    """Return the prompts: one alone as itself, since not every server takes several."""
    prompts = request.prompts
    return prompts[0] if len(prompts) == 1 else list(prompts)


def _wishes(request: CompletionRequest) -> dict[str, Any]:
    """Return the fields that the request sets, and no others: a server need not know every field there is."""
    wishes: dict[str, Any] = {
        "max_tokens": request.max_tokens,
        "n": request.n if request.n != 1 else None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": list(request.stops) or None,
        "seed": request.seed,
        "presence_penalty": request.presence_penalty or None,
        "frequency_penalty": request.frequency_penalty or None,
        "logit_bias": {str(token): bias for token, bias in request.logit_bias.items()} or None,
        "logprobs": request.logprobs,
        "echo": request.echo or None,
    }
    return {name: value for name, value in wishes.items() if value is not None}


def _pairs(top: Mapping[str, float | None] | None) -> list[tuple[str, float | None]]:
    return [] if top is None else list(top.items())


def _raw(token: str) -> bytes:
    return token.encode(errors="replace")


def _number(logprob: float | None) -> float:
    return math.nan if logprob is None else logprob


async def _nothing() -> AsyncGenerator[Delta]:
    return
    yield
