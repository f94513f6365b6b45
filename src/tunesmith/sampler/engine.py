# pyright: basic
"""The slot engine: one resident base, many requests and adapters in one batch, tokens handed out as they are computed.

Each turn of the loop either takes waiting prompts in (one packed pass over all of them) or moves every row one token on
(one pass, one token a row). A prompt is computed once and its slot copied for every further sample.

Shapes: T tokens of the packed row, S rows, C hidden size.
"""

import queue
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
import torch
from torch import Tensor

from tunesmith.lm.load import Base
from tunesmith.lm.lora import LoraModel, Span
from tunesmith.sampler import attention
from tunesmith.sampler.adapters import Adapters
from tunesmith.sampler.cache import Segment, SlotCache, Slots, decoding
from tunesmith.sampler.choice import Sampling, choose, generator

log = structlog.get_logger()

#: Rows at once, and prompt tokens taken in by one pass, so that rows under way never wait long for a newcomer.
N_MAX_ROWS: Final = 64
N_MAX_PROMPT_TOKENS: Final = 4096
CACHE_BYTES: Final = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Token:
    """One sampled token of sample `index`; `finish` is `stop` or `length` on the last."""

    index: int
    token: int
    logprob: float
    finish: str | None = None


@dataclass(slots=True)
class Request:
    """A prompt and how to go on from it; `emit` is called on the engine's thread with a token, or with what went wrong."""

    prompt: list[int]
    emit: Callable[[Token | Exception], None]
    n: int = 1
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop_ids: frozenset[int] = frozenset()
    adapter: tuple[str, Path, str] | None = None
    """Name, folder and sha256 of the adapter, None for the bare base."""
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Row:
    """One sample under way; its slot is its place in the list of rows."""

    request: Request
    index: int
    adapter_slot: int | None
    sampling: Sampling
    position: int
    last_token: int = -1
    n_sampled: int = 0


class PromptTooLong(ValueError):
    """The prompt with its answer does not fit the context."""


class Engine:
    """Samples on its own thread from `start` to `stop`."""

    def __init__(self, base: Base, lora: LoraModel, *, context_length: int, cache_bytes: int = CACHE_BYTES) -> None:
        attention.register()
        base.model.set_attn_implementation(attention.NAME)  # type: ignore[operator]  # a transformers model
        self._base = base
        self._lora = lora
        self._context_length = context_length
        self._cache = SlotCache(cache_bytes)
        self.adapters = Adapters(lora)
        self._inbox: queue.SimpleQueue[Request | Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: list[Request] = []
        self._rows: list[Row] = []
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End the loop after the pass in hand."""
        self._inbox.put(None)
        self._thread.join()

    def submit(self, request: Request) -> None:
        """Take a request in; its tokens go to its `emit`.

        Raises:
            PromptTooLong: it cannot fit.
        """
        if len(request.prompt) + request.max_tokens > self._context_length or not request.prompt:
            raise PromptTooLong(
                f"{len(request.prompt)} prompt tokens and {request.max_tokens} more do not fit the context of "
                f"{self._context_length} tokens"
            )
        self._inbox.put(request)

    def forget(self, name: str) -> None:
        """Drop an adapter once no row uses it."""
        self._inbox.put(lambda: self.adapters.forget(name))

    def _run(self) -> None:
        while self._collect():
            try:
                self._turn()
            except Exception as error:  # one bad pass fails the rows it was for, never the process
                log.exception("sampler.turn")
                self._fail_all(error)

    def _collect(self) -> bool:
        """Take in what came; wait when there is nothing to do. False at the end."""
        while True:
            idle = not self._rows and not self._waiting
            try:
                item = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if item is None:
                return False
            if isinstance(item, Request):
                self._waiting.append(item)
            else:
                item()

    @torch.inference_mode()
    def _turn(self) -> None:
        self._drop_cancelled()
        admitted = self._admit()
        if admitted:
            self._take_in(admitted)
        elif self._rows:
            self._advance()
        self.adapters.tidy(self._slots_in_use())

    def _slots_in_use(self) -> set[int]:
        return {row.adapter_slot for row in self._rows if row.adapter_slot is not None}

    def _drop_cancelled(self) -> None:
        self._waiting = [request for request in self._waiting if not request.cancelled.is_set()]
        for place in reversed(range(len(self._rows))):
            if self._rows[place].request.cancelled.is_set():
                self._remove(place)

    def _admit(self) -> list[Request]:
        """Return the waiting requests, in order, for whose rows there is room now."""
        admitted: list[Request] = []
        n_rows, n_tokens = len(self._rows), 0
        longest = max((row.position + row.request.max_tokens - row.n_sampled for row in self._rows), default=0)
        while self._waiting:
            request = self._waiting[0]
            longest = max(longest, len(request.prompt) + request.max_tokens)
            n_tokens += len(request.prompt)
            n_rows += request.n
            alone = not admitted and not self._rows
            room = n_rows <= N_MAX_ROWS and self._cache.fits(n_rows, longest)
            if not alone and (not room or (admitted and n_tokens > N_MAX_PROMPT_TOKENS)):
                break
            admitted.append(self._waiting.pop(0))
        return admitted

    def _take_in(self, requests: list[Request]) -> None:
        """Compute prompts in one pass, copy each slot for further samples, and choose everybody's first token."""
        taken: list[tuple[Request, int | None]] = []
        for request in requests:
            try:
                taken.append((request, self._adapter_slot(request)))
            except (OSError, ValueError) as error:
                request.emit(error)
        if not taken:
            return
        self._grow(taken)
        first = len(self._rows)
        segments: list[Segment] = []
        for request, slot in taken:
            segments.append(Segment(first + len(segments), 0, len(request.prompt)))
            if request.seed is None:
                request.seed = secrets.randbits(48)
            self._rows.append(_row(request, 0, slot))
        row_T = [token for request, _ in taken for token in request.prompt]
        position_T = [position for request, _ in taken for position in range(len(request.prompt))]
        hidden_TC = self._pass(row_T, position_T, tuple(segments), [slot for _, slot in taken])
        ends = torch.tensor([len(request.prompt) for request, _ in taken]).cumsum(0) - 1
        hidden_SC = hidden_TC.index_select(0, ends.to(hidden_TC.device))
        sources = list(range(len(taken)))
        for place, (request, slot) in enumerate(taken):
            for index in range(1, request.n):
                self._cache.copy(first + place, len(self._rows), len(request.prompt))
                self._rows.append(_row(request, index, slot))
                sources.append(place)
        self._choose(list(range(first, len(self._rows))), hidden_SC[torch.tensor(sources, device=hidden_SC.device)])

    def _adapter_slot(self, request: Request) -> int | None:
        if request.adapter is None:
            return None
        name, folder, sha256 = request.adapter
        return self.adapters.slot(name, folder, sha256, in_use=self._slots_in_use())

    def _grow(self, taken: list[tuple[Request, int | None]]) -> None:
        n_rows = len(self._rows) + sum(request.n for request, _ in taken)
        self._cache.reserve(n_rows, max(len(request.prompt) + request.max_tokens for request, _ in taken))

    def _advance(self) -> None:
        """Move every row one token on."""
        segments = tuple(Segment(place, row.position, 1) for place, row in enumerate(self._rows))
        tokens = [row.last_token for row in self._rows]
        positions = [row.position for row in self._rows]
        hidden_SC = self._pass(tokens, positions, segments, [row.adapter_slot for row in self._rows])
        for row in self._rows:
            row.position += 1
        self._choose(list(range(len(self._rows))), hidden_SC)

    def _pass(
        self, tokens: list[int], positions: list[int], segments: tuple[Segment, ...], slots: list[int | None]
    ) -> Tensor:
        """Return the last hidden states (T, C) of a packed row."""
        device = self._base.device
        self._lora.route.spans = _spans(segments, slots)
        try:
            output = self._base.decoder(
                input_ids=torch.tensor([tokens], device=device),
                position_ids=torch.tensor([positions], device=device),
                use_cache=False,
                tunesmith_slots=Slots(self._cache, segments, decoding(segments, device)),
            )
        finally:
            self._lora.route.spans = ()
        return output.last_hidden_state[0]

    def _choose(self, places: list[int], hidden_SC: Tensor) -> None:
        """Choose the next token of the rows, hand it out, and end the rows that are complete."""
        rows = [self._rows[place] for place in places]
        tokens, logprobs = choose(self._base.head.logits(hidden_SC), [row.sampling for row in rows])
        ended: list[int] = []
        for place, row, token, logprob in zip(places, rows, tokens, logprobs, strict=True):
            row.last_token = token
            row.n_sampled += 1
            finish = "stop" if token in row.request.stop_ids else None
            if finish is None and row.n_sampled >= row.request.max_tokens:
                finish = "length"
            row.request.emit(Token(row.index, token, logprob, finish))
            if finish is not None:
                ended.append(place)
        for place in reversed(ended):
            self._remove(place)

    def _remove(self, place: int) -> None:
        """Take a row out; the last row moves into its slot, so that slots stay without gaps."""
        last = len(self._rows) - 1
        if place != last:
            self._cache.copy(last, place, self._rows[last].position)
            self._rows[place] = self._rows[last]
        self._rows.pop()

    def _fail_all(self, error: Exception) -> None:
        requests = {id(row.request): row.request for row in self._rows}
        self._rows.clear()
        for request in requests.values():
            request.emit(error)


def _row(request: Request, index: int, adapter_slot: int | None) -> Row:
    sampling = Sampling(request.temperature, request.top_p, generator(request.seed or 0, index))
    return Row(request, index, adapter_slot, sampling, position=len(request.prompt))


def _spans(segments: tuple[Segment, ...], slots: list[int | None]) -> tuple[Span, ...]:
    """Lead neighbouring segments of one adapter through it as one span; segments of the bare base through none."""
    spans: list[Span] = []
    start = 0
    for segment, slot in zip(segments, slots, strict=True):
        stop = start + segment.n_tokens
        if slot is not None:
            if spans and spans[-1].adapter == slot and spans[-1].stop == start:
                spans[-1] = Span(slot, spans[-1].start, stop)
            else:
                spans.append(Span(slot, start, stop))
        start = stop
    return tuple(spans)
