"""The sockets of the house, one page: what the floors above may ask of an adapter, and no more."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from tunesmith.core.channel import Report, Task
from tunesmith.domain.sampler import Sampler


@dataclass(frozen=True, slots=True)
class Stored:
    """What a put wrote."""

    bytes: int
    sha256: str


class Blobs(Protocol):
    """Bytes by key. Keys look like paths (`files/…`, `jobs/{id}/attempts/{n}/…`) and never climb out of the store."""

    @property
    def url(self) -> str:
        """Where the store is, for another process to open."""
        ...

    def put(self, key: str, chunks: Iterable[bytes], *, create_only: bool = False) -> Stored:
        """Write an object durably and atomically; with `create_only` an existing one raises `FileExistsError`."""
        ...

    def open(self, key: str) -> BinaryIO:
        """Open an object for reading; an absent one raises `FileNotFoundError`."""
        ...

    def path(self, key: str) -> Path:
        """Return a local path of an object or a prefix, fetching it first where the store is remote."""
        ...

    def delete(self, key: str) -> None:
        """Delete an object, or everything under a prefix; absent is fine."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """List the objects under a prefix, sorted."""
        ...

    def clear_unfinished(self, prefix: str) -> int:
        """Remove what puts that never ended left under a prefix, while nothing is put there; return how many it were."""
        ...


@dataclass(frozen=True, slots=True)
class Handle:
    """A placed attempt's supervisor, recognisable after a restart: a pid alone can be somebody else's by then."""

    pid: int
    start_time: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt's worker ended, as its supervisor recorded it once the whole tree was gone."""

    #: The worker's exit code; None when a signal ended it.
    exit_code: int | None
    #: The signal that ended it; None when it exited.
    signal: int | None
    #: Whether the supervisor killed the tree itself (cancelled, fenced, or asked to).
    killed: bool = False
    #: Whether somebody else killed it and the kernel told of an out-of-memory kill meanwhile.
    out_of_memory: bool = False
    stderr_tail: str = ""
    #: Why the supervisor killed the tree, one of `core.channel`'s causes; None when it did not, and from older ones.
    cause: str | None = None


class Executor(Protocol):
    """Places attempts and kills them; it decides nothing and is idempotent."""

    def start(self, task: Task) -> Handle:
        """Start a supervisor for the task and return at once."""
        ...

    def stop(self, handle: Handle) -> None:
        """Kill the attempt's whole tree, at once, without asking it; returns before it is gone."""
        ...

    def find(self, job_id: str, attempt: int) -> Handle | None:
        """Return the place of an attempt that was started, by whichever server; None when it never was."""
        ...

    def alive(self, handle: Handle) -> bool:
        """Say whether the supervisor still runs."""
        ...

    def sweep(self, job_id: str, attempt: int | None = None) -> int:
        """Kill whatever still carries the job's (and attempt's) environment tag; return how many were found."""
        ...

    def strays(self) -> frozenset[tuple[str, int]]:
        """Return the (job, attempt) of every process that still carries a tag, by one look over the machine."""
        ...

    def outcome(self, job_id: str, attempt: int) -> Outcome | None:
        """Return how an attempt ended; None while it runs, and when its supervisor died without a record."""
        ...

    def rest(self, job_id: str, attempt: int) -> list[Report]:
        """Return the reports that an ended attempt had not yet delivered, oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class Spare:
    """Processes that wait for a task, everything imported."""

    #: The kind of task: `validate` or `train`.
    kind: str
    #: Its supervisor's.
    pid: int
    #: Whether everything is imported; one that is not will do its task as soon as it is.
    ready: bool
    memory_bytes: int


class Spares(Protocol):
    """Attempts' processes made ready before there is an attempt."""

    def list(self) -> list[Spare]:
        """Return the spares there are now."""
        ...


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter a sampler can load."""

    name: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One prompt, `n` samples. Token ids in, token ids out; text is the service's business."""

    prompt: list[int]
    n: int = 1
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop_ids: frozenset[int] = frozenset()
    adapter: Adapter | None = None
    grammar: str | None = None
    """What every sample keeps to, as `tunesmith.data.grammar` writes it."""
    project: str = ""
    """Who asks: projects that wait for the same base take turns."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    """What is added to the logits of tokens before they are drawn from."""
    top_logprobs: int = 0
    """So many of the likeliest tokens are told with each."""
    prompt_logprobs: bool = False
    """Tell the prompt's own tokens too, from its second on."""
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


#: The index of a prompt's own tokens among what is sampled.
PROMPT: Final = -1


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sampled token of sample `index`; `finish` is `stop` or `length` on its last one.

    Log-probabilities are the model's own: at temperature 1, among all tokens, before biases, penalties and grammars. The
    tokens of a prompt, where they are asked for, have the index `PROMPT` and come before all others. A request of 0 tokens
    ends with one that stands for none.
    """

    index: int
    token: int
    logprob: float
    finish: str | None = None
    top: tuple[tuple[int, float], ...] = ()
    cached: int = 0
    """With a request's first token: the tokens of its prompt that had been computed before, for another."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server upstream: its base URL, and the key that it is asked with."""

    url: str
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt that a training wants samples of: token ids in, token ids out."""

    prompt: list[int]
    n: int
    max_tokens: int
    seed: int
    #: On the weights that are trained; else on those that training began with.
    tuned: bool = True
    temperature: float = 1.0
    #: What every sample keeps to, as `tunesmith.data.grammar` writes it.
    grammar: str | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """One whole sample: number `sample` of ask number `ask`."""

    ask: int
    sample: int
    #: With the token that ended it, where one did.
    tokens: list[int]
    #: Log-probabilities of the tokens at temperature 1, among all tokens.
    logprobs: list[float]
    #: `stop`, or `length` where the tokens ran out.
    finish: str


class Drawing(Protocol):
    """The sampler inside a training, on the very weights that it trains."""

    def draw(self, asks: Sequence[Ask], on_drawn: Callable[[Drawn], None], *, stop: Callable[[], bool]) -> bool:
        """Draw the samples and hand each out as soon as it ends; False when `stop` said so meanwhile.

        What comes out depends on weights, prompts and seeds alone, not on time.
        """
        ...


class UpstreamFailed(Exception):
    """A server upstream gives no answer; the message says why, and never holds the key."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str | None = None,
        passing: bool = False,
        pause_s: float | None = None,
        reason: str = "",
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        #: The HTTP status, 0 when nothing came.
        self.status = status
        #: What the server said itself: the error's message, and its `code` and `param` where it has them.
        self.reason = reason
        self.code = code
        self.param = param
        #: Whether asking again may help, and the seconds after which the server wants to be asked.
        self.passing = passing
        self.pause_s = pause_s


class Upstreams(Protocol):
    """Servers that speak OpenAI's wire."""

    def turn(self, at: Endpoint) -> AbstractAsyncContextManager[None]:
        """Wait until fewer than the permitted number are asking the server, and count among them."""
        ...

    async def call(
        self,
        at: Endpoint,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        n_tries: int | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return the JSON object that the server answers to a POST, or to a GET without a body; retried where it helps.

        Raises:
            UpstreamFailed: it refuses, or there was no answer after the last try or within the time.
        """
        ...

    async def tell(
        self, at: Endpoint, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> None:
        """Send a POST, or a GET without a body, whose answer, whatever its words, says only that it was done.

        Raises:
            UpstreamFailed: it refuses, or there was no answer within the time; it is not asked again.
        """
        ...

    def stream(self, at: Endpoint, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """Yield the JSON objects of the streamed answer to a POST; closing the generator closes the connection.

        Retried where it helps, until something has come; a server that is busy (429) is not asked again.

        Raises:
            UpstreamFailed: it refuses, fails, falls silent, or breaks off.
        """
        ...


class PictureRefused(Exception):
    """An image that is not fetched, or is none; the message says why."""


class Pictures(Protocol):
    """Images by URL."""

    async def fetch(self, url: str, *, n_max_bytes: int) -> str:
        """Return the image as a `data:` URL.

        Raises:
            PictureRefused: it is not fetched, or it is no image of a known format.
        """
        ...


class Inference(Protocol):
    """Answers for one or more bases. Closing the iterator stops the generation at the next token."""

    def stream(self, base_path: str, request: GenerateRequest) -> AsyncGenerator[Sampled]:
        """Sample tokens as they are computed; raises `Unavailable` when the base or adapter cannot be loaded."""
        ...

    async def warm(self, base_path: str) -> None:
        """Make the base resident ahead of the first request."""
        ...

    async def forget(self, adapter_name: str) -> None:
        """Drop an adapter wherever it is loaded; answers under way go on with it."""
        ...

    def unload(self, base_path: str) -> None:
        """Let no new request use a base's process, from any thread; it ends with its last answer."""
        ...

    async def samplers(self) -> list[Sampler]:
        """Return every sampler there is, those too that are being loaded."""
        ...

    async def close(self) -> None:
        """Stop every sampler process."""
        ...


class Reporter(Protocol):
    """The worker's news, told outward; every call returns at once."""

    def started(self, *, total_steps: int, step: int) -> None:
        """Say that training goes on from `step`."""
        ...

    def metrics(self, step: int, total_steps: int, values: dict[str, Any]) -> None:
        """Report one optimizer step."""
        ...

    def message(self, text: str, *, level: str = "info", key: str | None = None) -> None:
        """Put a line into the job's events."""
        ...

    def checkpoint(self, step: int, key: str, sha256: str, metrics: dict[str, Any]) -> None:
        """Say that a checkpoint is complete in the blob store."""
        ...


class Control(Protocol):
    """What the outside asks of a worker; cancel needs no asking."""

    def pause_asked(self) -> bool:
        """Say whether the job is to pause at the next step boundary."""
        ...
