"""Completions of bare prompts: no template, several prompts at once, their own tokens told where they are asked for."""

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from anyio import to_thread

from tunesmith.core.errors import InvalidRequest
from tunesmith.core.merging import merged
from tunesmith.data.answers import Assembler, Delta
from tunesmith.data.vocabulary import TokenLogprob
from tunesmith.domain.model import Base
from tunesmith.domain.ports import PROMPT, Adapter, GenerateRequest, Sampled
from tunesmith.domain.scope import Project
from tunesmith.services.chat import Answer, Chat, Served
from tunesmith.services.watching import watched

if TYPE_CHECKING:
    from tunesmith.data.render import TextStream

#: Prompts of one request that are with the sampler at the same time.
_N_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A checked request; the choices of prompt i are numbers i * n to i * n + n - 1."""

    model: str
    prompts: Sequence[str | Sequence[int]]
    n: int = 1
    #: So many are sampled, and those told that are the likeliest by the token.
    best_of: int = 1
    max_tokens: int = 16
    #: None as in a request that leaves them out: 1 here, its own for a model upstream.
    temperature: float | None = None
    top_p: float | None = None
    stops: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    #: Tell every token, and so many of the likeliest beside it.
    logprobs: int | None = None
    #: Begin each choice with its prompt.
    echo: bool = False


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A prompt as tokens and as text; `n_added` of the tokens came from the tokenizer and show in no text."""

    tokens: list[int]
    text: str
    n_added: int


class ElsewhereToo(Protocol):
    """Bare completions of models upstream."""

    def answer(self, base: Base, request: CompletionRequest, adapter: Adapter | None) -> Answer:
        """Return the answer of a model upstream, or of an adapter on it, which nobody has asked for yet.

        Raises:
            InvalidRequest: it asks for what does not pass on.
        """
        ...


@dataclass(slots=True)
class Completions:
    """Goes on from texts, with every model that chat answers for."""

    chat: Chat
    elsewhere: ElsewhereToo

    async def answer(self, scope: Project, request: CompletionRequest) -> Answer:
        """Resolve the model, read the prompts and return the answer, which nobody has started to compute yet.

        Raises:
            UnknownModel: no such model in this project.
            InvalidRequest: the base is not in order, or a prompt cannot be read or does not fit the context.
        """
        began = self.chat.clock.monotonic()
        base, adapter = await to_thread.run_sync(self.chat.named, scope, request.model)
        if base.upstream is not None:
            answer = self.elsewhere.answer(base, request, adapter)
            answer.deltas = watched(answer.deltas, answer, self.chat.sight, self.chat.clock, base=base.name, began=began)
            return answer
        served, prompts = await to_thread.run_sync(self._prepare, base, adapter, request)
        answer = Answer(
            id=self.chat.ids.completion(),
            created_at=self.chat.clock.now(),
            model=request.model,
            n_prompt_tokens=sum(len(prompt.tokens) for prompt in prompts),
            fingerprint=served.fingerprint,
            deltas=merged((), n_at_once=0),
        )
        each = self._best if request.best_of > request.n else self._choices
        streams = (each(scope, request, served, prompt, answer, number * request.n) for number, prompt in enumerate(prompts))
        deltas = merged(streams, n_at_once=min(_N_AT_ONCE, len(prompts)))
        answer.deltas = watched(deltas, answer, self.chat.sight, self.chat.clock, base=served.base.name, began=began)
        return answer

    def _prepare(self, base: Base, adapter: Adapter | None, request: CompletionRequest) -> tuple[Served, list[_Prompt]]:
        served = self.chat.here(base, adapter)
        served.check_biases(request.logit_bias)
        several = len(request.prompts) > 1
        prompts: list[_Prompt] = []
        for number, given in enumerate(request.prompts):
            prompt = _read(served, given, f"prompt[{number}]" if several else "prompt")
            _check_length(served, prompt, request)
            prompts.append(prompt)
        return served, prompts

    async def _choices(
        self, scope: Project, request: CompletionRequest, served: Served, prompt: _Prompt, answer: Answer, first: int
    ) -> AsyncGenerator[Delta]:
        """Yield what is new in the choices of a prompt, the first of them number `first` of all."""
        writing = _Writing(self.chat, request, served, prompt, answer, request.n)
        async with aclosing(self._deltas(scope, writing)) as deltas:
            async for delta in deltas:
                yield replace(delta, index=first + delta.index)

    async def _best(
        self, scope: Project, request: CompletionRequest, served: Served, prompt: _Prompt, answer: Answer, first: int
    ) -> AsyncGenerator[Delta]:
        """Yield the `n` best of `best_of` samples, the best first, once all have ended."""
        writing = _Writing(self.chat, request, served, prompt, answer, request.best_of)
        told: list[list[Delta]] = [[] for _ in range(request.best_of)]
        async with aclosing(self._deltas(scope, writing)) as deltas:
            async for delta in deltas:
                told[delta.index].append(delta)
        best = sorted(range(request.best_of), key=writing.mean, reverse=True)[: request.n]
        for index, place in enumerate(best):
            for delta in told[place]:
                yield replace(delta, index=first + index)

    async def _deltas(self, scope: Project, writing: "_Writing") -> AsyncGenerator[Delta]:
        generate = _generate(scope, writing.request, writing.served, writing.prompt.tokens, writing.n)
        async with aclosing(self._sampled(writing.served, generate)) as tokens:
            async for sampled in tokens:
                for delta in writing.take(sampled):
                    yield delta
                if writing.over:
                    return

    async def _sampled(self, served: Served, generate: GenerateRequest) -> AsyncGenerator[Sampled]:
        try:
            async with aclosing(self.chat.inference.stream(served.base.path, generate)) as tokens:
                async for sampled in tokens:
                    yield sampled
        except InvalidRequest as error:
            # The sampler knows of messages only.
            raise InvalidRequest(error.message, param="prompt", code=error.error_code) from error


class _Writing:
    """The samples of one prompt as they grow."""

    def __init__(
        self, chat: Chat, request: CompletionRequest, served: Served, prompt: _Prompt, answer: Answer, n: int
    ) -> None:
        self.request, self.served, self.prompt, self.n = request, served, prompt, n
        self._answer = answer
        self._scored = request.logprobs is not None
        self._echo = _Echo(served, prompt, scored=self._scored) if request.echo else None
        self._samples = [
            Assembler(index, served.renderer.stream(after=prompt.tokens), request.stops, with_tools=False, ids=chat.ids)
            for index in range(n)
        ]
        self._logprobs = [0.0] * n
        self._n_cached = 0
        self.over = False

    def take(self, sampled: Sampled) -> list[Delta]:
        """Return what a token adds; the first ones are the prompt's own."""
        if sampled.index == PROMPT:
            assert self._echo is not None
            self._echo.add(sampled)
            return []
        self._answer.n_cached_tokens += max(sampled.cached - self._n_cached, 0)
        self._n_cached = max(sampled.cached, self._n_cached)
        deltas = self._echoed()
        if not self.request.max_tokens:
            self.over = True
            return deltas + [Delta(index, finish_reason="length") for index in range(self.n)]
        sample = self._samples[sampled.index]
        if not sample.finished:
            self._answer.n_completion_tokens += 1
            self._logprobs[sampled.index] += sampled.logprob
        scored = None
        if self._scored:
            scored = self.served.renderer.vocabulary.scored(sampled.token, sampled.logprob, sampled.top)
        is_stop = sampled.token in self.served.renderer.stop_ids
        deltas += map(self._placed, sample.feed(sampled.token, sampled.finish, is_stop=is_stop, scored=scored))
        self.over = all(each.finished for each in self._samples)
        return deltas

    def mean(self, index: int) -> float:
        """Return a sample's log-probability for each of its tokens."""
        return self._logprobs[index] / max(self._samples[index].n_tokens, 1)

    def _placed(self, delta: Delta) -> Delta:
        """Count the places of tokens from the begin of the prompt."""
        n = len(self.prompt.text)
        return replace(delta, logprobs=tuple(replace(token, start=n + token.start) for token in delta.logprobs))

    def _echoed(self) -> list[Delta]:
        echo, self._echo = self._echo, None
        return [] if echo is None else [Delta(index, text=self.prompt.text, logprobs=echo.told) for index in range(self.n)]


class _Echo:
    """A prompt's own tokens as they are told with its text."""

    def __init__(self, served: Served, prompt: _Prompt, *, scored: bool) -> None:
        self._vocabulary = served.renderer.vocabulary
        self._starts = _starts(served.renderer.stream(skip_special_tokens=False), prompt) if scored else []
        self._tokens = [self._vocabulary.scored(prompt.tokens[0], math.nan)] if scored else []

    def add(self, sampled: Sampled) -> None:
        """Take in what the model says of the next token."""
        self._tokens.append(self._vocabulary.scored(sampled.token, sampled.logprob, sampled.top))

    @property
    def told(self) -> tuple[TokenLogprob, ...]:
        """The tokens, each with the place of its text."""
        return tuple(replace(token, start=start) for token, start in zip(self._tokens, self._starts, strict=True))


def _starts(text: "TextStream", prompt: _Prompt) -> list[int]:
    """Return where in the prompt's text each token begins."""
    starts, place = [0] * prompt.n_added, 0
    for id in prompt.tokens[prompt.n_added :]:
        starts.append(place)
        place += len(text.step(id))
    return starts


def _read(served: Served, given: str | Sequence[int], param: str) -> _Prompt:
    """Return a prompt.

    Raises:
        InvalidRequest: it names tokens that the model does not have, or says nothing where something must be.
    """
    renderer = served.renderer
    if isinstance(given, str):
        tokens, n_added = renderer.bare(given)
        if not tokens:
            raise InvalidRequest(
                f"'{param}' is empty, and {served.base.name} has no token that begins a text: say something.", param=param
            )
        return _Prompt(tokens, given, n_added)
    unknown = [id for id in given if id not in renderer.vocabulary]
    if unknown:
        raise InvalidRequest(
            f"'{param}' holds {', '.join(map(str, unknown[:10]))}{', …' if unknown[10:] else ''}: the vocabulary of "
            f"{served.base.name} has no such tokens. Use ids of that model's own tokenizer, or text.",
            param=param,
        )
    return _Prompt(list(given), renderer.decode(given, skip_special_tokens=False), 0)


def _check_length(served: Served, prompt: _Prompt, request: CompletionRequest) -> None:
    n_prompt, n_most = len(prompt.tokens), served.base.context_length
    if n_prompt + request.max_tokens > n_most:
        raise InvalidRequest(
            f"This model's maximum context length is {n_most} tokens, however you requested {n_prompt + request.max_tokens} "
            f"tokens ({n_prompt} in your prompt; {request.max_tokens} for the completion). Please reduce your prompt; or "
            "completion length.",
            param="prompt",
            code="context_length_exceeded",
        )


def _generate(scope: Project, request: CompletionRequest, served: Served, tokens: list[int], n: int) -> GenerateRequest:
    return GenerateRequest(
        prompt=tokens,
        n=n if request.max_tokens else 1,
        max_tokens=request.max_tokens,
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=request.seed,
        stop_ids=served.renderer.stop_ids,
        adapter=served.adapter,
        project=scope.project_id,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        logit_bias=request.logit_bias,
        top_logprobs=request.logprobs or 0,
        prompt_logprobs=request.echo and request.logprobs is not None,
    )
