"""What a sampler is asked for and where each answer is: requests, the rows of their samples, the tokens handed out."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llguidance import LLMatcher
from torch import Tensor

from tunesmith.sampler.choice import Leaning, Sampling, generator
from tunesmith.sampler.grammar import GrammarBroken, take


@dataclass(frozen=True, slots=True)
class Token:
    """One sampled token of sample `index`, or of the prompt (`PROMPT`); `finish` is `stop` or `length` on the last."""

    index: int
    token: int
    logprob: float
    finish: str | None = None
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens here, the best first."""
    cached: int = 0
    """With the first token of a request: the tokens of its prompt that were not computed for it."""


@dataclass(slots=True)
class Request:
    """A prompt and how to go on from it; `emit` is called on the engine's thread with a step's tokens, or with an error."""

    prompt: list[int]
    emit: Callable[[list[Token] | Exception], None]
    n: int = 1
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop_ids: frozenset[int] = frozenset()
    adapter: tuple[str, Path, str] | None = None
    """Name, folder and sha256 of the adapter, None for the bare base."""
    slot: int | None = None
    """Where an adapter lies that is resident anyway, in place of `adapter`."""
    matcher: LLMatcher | None = None
    """At the begin of the grammar that binds every sample."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    top_logprobs: int = 0
    prompt_logprobs: bool = False
    """Tell the prompt's tokens too: all of it is computed then, whatever a cache holds of it."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    project: str = ""
    """Whose it is: projects that wait take turns."""
    n_begun: int = 0
    """Samples that have a row, or had one."""
    cuts_broken: bool = False
    """A sample whose grammar leads nowhere ends there, as where its tokens run out, and is no error."""
    broken: bool = False
    """Something went wrong with it."""
    prompt_T: Tensor | None = None
    """The prompt, once it is compared with others."""

    @property
    def n_positions(self) -> int:
        """The most positions that a sample can take."""
        return len(self.prompt) + self.max_tokens


@dataclass(slots=True)
class Row:
    """One sample under way; its slot is its place in the list of rows."""

    request: Request
    index: int
    adapter_slot: int | None
    sampling: Sampling
    position: int
    matcher: LLMatcher | None = None
    last_token: int = -1
    n_sampled: int = 0
    sampled: list[int] = field(default_factory=list[int])
    n_cached: int = 0
    """Of its prompt, the tokens that were not computed for it."""

    def take(self, token: int) -> str | None:
        """Go on with a token; return how the sample ends with it, None when it goes on.

        Raises:
            GrammarBroken: what binds it leads nowhere, and its request takes no answer that is cut.
        """
        request = self.request
        self.last_token = token
        self.n_sampled += 1
        self.sampled.append(token)
        ended = is_stop = token in request.stop_ids
        if self.matcher is not None:
            try:
                ended = take(self.matcher, token, is_stop=is_stop)
            except GrammarBroken:
                if request.cuts_broken:
                    return "length"
                raise
        return "stop" if ended else "length" if self.n_sampled >= request.max_tokens else None


@dataclass(frozen=True, slots=True)
class Intake:
    """Samples `first` to `first + n - 1` of a request, to be begun together."""

    request: Request
    first: int
    n: int
    adapter_slot: int | None = None


def row_of(intake: Intake, place: int, *, n_cached: int = 0) -> Row:
    """Return the row of an intake's sample `place`, at the end of its prompt, of which the first tokens were computed."""
    request, index = intake.request, intake.first + place
    leaning = None
    if request.logit_bias or request.presence_penalty or request.frequency_penalty:
        leaning = Leaning(request.logit_bias, presence=request.presence_penalty, frequency=request.frequency_penalty)
    draws = generator(request.seed or 0, index)
    sampling = Sampling(request.temperature, request.top_p, draws, leaning, request.top_logprobs)
    matcher = None if request.matcher is None else request.matcher.deep_copy()
    return Row(
        request, index, intake.adapter_slot, sampling, position=len(request.prompt), matcher=matcher, n_cached=n_cached
    )
