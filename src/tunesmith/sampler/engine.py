# pyright: basic
"""The slot engine: one resident base, many requests and adapters in one batch, tokens handed out as they are computed.

Each turn of the loop either takes waiting prompts in (one packed pass over all of them) or moves every row one token on
(one pass, one token a row). A prompt is computed once and its slot copied for every further sample.

Shapes: T tokens of the packed row, S rows, C hidden size.
"""

import math
import queue
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import structlog
import torch
from torch import Tensor

from tunesmith.core.failpoint import failpoint
from tunesmith.core.machine import readable_bytes
from tunesmith.lm.load import Base
from tunesmith.lm.lora import LoraModel
from tunesmith.sampler import attention, waiting
from tunesmith.sampler.adapters import Adapters
from tunesmith.sampler.cache import Segment, SlotCache
from tunesmith.sampler.choice import choose
from tunesmith.sampler.grammar import GrammarBroken, allowed
from tunesmith.sampler.passes import Passes, last_places, portions
from tunesmith.sampler.prefixes import Prefixes
from tunesmith.sampler.prompts import tell_prompts
from tunesmith.sampler.request import Intake, Request, Row, Token, row_of

log = structlog.get_logger()

CACHE_BYTES: Final = 2 * 1024**3
#: What an idle engine keeps for the next rows.
KEPT_BYTES: Final = 256 * 1024**2


class PromptTooLong(ValueError):
    """The prompt with its answer does not fit the context, or the memory that there is for it."""


class Engine:
    """Samples on its own thread from `start` to `stop`."""

    def __init__(
        self,
        base: Base,
        lora: LoraModel,
        *,
        context_length: int,
        cache_bytes: int = CACHE_BYTES,
        n_max_waiting: int | None = None,
        reuse: bool = False,
        randomness: random.Random | None = None,
    ) -> None:
        """Prepare to sample; with `reuse` what is computed, and so a last digit, depends on what was asked before."""
        attention.register()
        base.model.set_attn_implementation(attention.NAME)  # type: ignore[operator]  # a transformers model
        self._base = base
        self._lora = lora
        self._context_length = context_length
        self._cache = SlotCache(cache_bytes)
        self._prefixes = Prefixes(self._cache, wanted=reuse)
        #: Where the seeds of requests without one come from.
        self._randomness = randomness if randomness is not None else random.SystemRandom()
        self.adapters = Adapters(lora)
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting = waiting.Waiting(n_max_waiting)
        self._rows: list[Row] = []
        self._admitted: list[Intake] = []
        self._n_under_way = 0
        self.n_steps = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._passes = Passes(base, lora, self._cache, context_length=context_length)

    def status(self) -> dict[str, Any]:
        """Return what the engine is at: rows and requests, passes made, adapters resident, bytes held for rows."""
        return {
            "rows": len(self._rows),
            "waiting": len(self._waiting),
            "steps": self.n_steps,
            "adapters": self.adapters.names(),
            "cache_bytes": self._cache.n_bytes + self._prefixes.n_bytes,
        }

    def start(self, *, on_death: Callable[[], None] = lambda: None) -> None:
        """Begin to work; should the thread end otherwise than by `stop`, `on_death` is called, and nothing answered."""
        self._on_death = on_death
        self._thread.start()

    def stop(self) -> None:
        """End the loop after the pass in hand."""
        self._inbox.put(None)
        self._thread.join()

    def submit(self, request: Request) -> None:
        """Take a request in; its tokens go to its `emit`, and so does it when another project's takes its place.

        Raises:
            PromptTooLong: it cannot fit.
            QueueFull: too many wait.
        """
        self._check(request)
        leaves = self._waiting.add(request)
        if leaves is not None:
            leaves.emit(self._waiting.full())
        self._inbox.put(lambda: None)  # that they are looked at

    def _check(self, request: Request) -> None:
        if request.n_positions > self._context_length or not request.prompt:
            raise PromptTooLong(
                f"{len(request.prompt)} prompt tokens and {request.max_tokens} more do not fit the context of "
                f"{self._context_length} tokens"
            )
        if self._cache.room(request.n_positions) < 1:
            needed, held = request.n_positions * self._cache.position_bytes, self._cache.max_bytes
            raise PromptTooLong(
                f"{len(request.prompt)} prompt tokens and {request.max_tokens} more need {readable_bytes(needed)} of memory "
                f"for their keys and values, and this sampler has {readable_bytes(held)}: ask for fewer with max_tokens"
            )

    def work_off(self, requests: list[Request], *, stop: Callable[[], bool]) -> bool:
        """Answer requests on the caller's own thread, in place of `start`; False when `stop` said so before they ended.

        All are taken in at once, so that which rows are computed together depends on nothing but the requests.

        Raises:
            PromptTooLong: one cannot fit.
        """
        for request in requests:
            self._check(request)
        self._passes.refresh()
        for request in requests:
            self._waiting.add(request)
        try:
            while self._waiting or self._rows:
                if stop():
                    return False
                self._turn()
        finally:
            self._waiting.keep(lambda _: False)
            self._rows.clear()
            self._cache.release()
        return True

    def forget(self, name: str) -> None:
        """Drop an adapter once no row uses it."""
        self._inbox.put(lambda: self.adapters.forget(name))
        self._inbox.put(lambda: self._prefixes.forget(name))

    def _run(self) -> None:
        try:
            while self._collect():
                try:
                    self._turn()
                except Exception as error:  # one bad pass fails those it was for, never the process
                    self._recover(error)
                    log.exception("sampler.turn")
        except BaseException:
            self._on_death()
            raise

    def _collect(self) -> bool:
        """Take in what came; wait when there is nothing to do. False at the end."""
        idle = not self._rows and not self._waiting
        while True:
            try:
                item = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if item is None:
                return False
            item()
            idle = False

    @torch.inference_mode()
    def _turn(self) -> None:
        self._drop_cancelled()
        self._n_under_way = len(self._rows)
        self._admitted = self._waiting.admit(self._rows, self._cache.room)
        if self._admitted:
            self._take_in(self._admitted)
            self._admitted = []
        elif self._rows:
            failpoint("sampler.step")
            self._advance()
        self.adapters.tidy(self._slots_in_use())
        self._passes.tidy()
        if not self._rows and not self._waiting and self._cache.n_bytes > KEPT_BYTES:
            self._cache.release()

    def _slots_in_use(self) -> set[int]:
        return {row.adapter_slot for row in self._rows if row.adapter_slot is not None}

    def _drop_cancelled(self) -> None:
        self._waiting.keep(lambda request: not request.cancelled.is_set())
        for place in reversed(range(len(self._rows))):
            if self._rows[place].request.cancelled.is_set():
                self._remove(place)

    def _take_in(self, admitted: list[Intake]) -> None:
        """Compute prompts in one pass, copy each slot for further samples, and choose everybody's first token."""
        intakes: list[Intake] = []
        for admission in admitted:
            intake = self._with_adapter(admission, {each.adapter_slot for each in intakes if each.adapter_slot is not None})
            if intake is not None:
                intakes.append(intake)
        if not intakes:
            return
        first = len(self._rows)
        begun = [self._prefixes.find(intake.request, self._rows) for intake in intakes]
        segments: list[Segment] = []
        for intake, beginning in zip(intakes, begun, strict=True):
            n_cached = 0 if beginning is None else beginning.n
            segments.append(Segment(len(self._rows), n_cached, len(intake.request.prompt) - n_cached))
            if intake.request.seed is None:
                intake.request.seed = self._randomness.getrandbits(48)
            self._rows.append(row_of(intake, 0, n_cached=n_cached))
        n_rows = first + sum(intake.n for intake in intakes)
        self._reserve(n_rows, max(len(intake.request.prompt) for intake in intakes) + 1)
        for segment, beginning in zip(segments, begun, strict=True):
            if beginning is not None:
                self._prefixes.copy(beginning, segment.slot)
        hidden_SC = self._compute_prompts(intakes, segments)
        sources = list(range(len(intakes)))
        for place, intake in enumerate(intakes):
            for index in range(1, intake.n):
                self._cache.copy(first + place, len(self._rows), len(intake.request.prompt))
                self._rows.append(row_of(intake, index))
                sources.append(place)
        self._choose(list(range(first, len(self._rows))), hidden_SC[torch.tensor(sources, device=hidden_SC.device)])

    def _compute_prompts(self, intakes: list[Intake], segments: list[Segment]) -> Tensor:
        """Fill the slots of prompts, from where they were begun, and return each one's last hidden state (S, C).

        A prompt longer than `waiting.N_MAX_PROMPT_TOKENS` comes alone; it is computed in parts, so that its length costs no
        more memory than its keys and values.
        """
        n_most = waiting.N_MAX_PROMPT_TOKENS
        while len(segments) == 1 and (left := segments[0]).n_tokens > n_most:
            self._prompt_pass(intakes, [replace(left, n_tokens=n_most)])
            segments = [Segment(left.slot, left.start + n_most, left.n_tokens - n_most)]
        parts = portions([segment.n_tokens for segment in segments], self._passes.n_tokens)
        return torch.cat([self._prompt_pass(intakes[part], segments[part]) for part in parts])

    def _prompt_pass(self, intakes: list[Intake], segments: list[Segment]) -> Tensor:
        """Compute the segments of prompts in one pass and return each one's last hidden state (S, C)."""
        row_T: list[int] = []
        position_T: list[int] = []
        for intake, segment in zip(intakes, segments, strict=True):
            row_T += intake.request.prompt[segment.start : segment.end]
            position_T += range(segment.start, segment.end)
        slots = [intake.adapter_slot for intake in intakes]
        if not any(intake.request.prompt_logprobs for intake in intakes):
            return self._pass(row_T, position_T, tuple(segments), slots)
        hidden_TC = self._pass(row_T, position_T, tuple(segments), slots, ends_only=False)
        tell_prompts(self._base.head, hidden_TC, intakes, segments)
        return hidden_TC[torch.tensor(last_places(segments), device=hidden_TC.device)]

    def _with_adapter(self, intake: Intake, spoken_for: set[int]) -> Intake | None:
        """Return the intake with its adapter resident; None when that does not load, which is told to who asked.

        The adapters in the slots `spoken_for` are to be used by the pass in preparation, and stay.
        """
        request = intake.request
        if request.adapter is None:
            return intake if request.slot is None else replace(intake, adapter_slot=request.slot)
        name, folder, sha256 = request.adapter
        try:
            slot = self.adapters.slot(name, folder, sha256, in_use=self._slots_in_use() | spoken_for)
        except (OSError, ValueError) as error:
            self._waiting.keep(lambda other: other is not request)
            request.emit(error)
            return None
        return replace(intake, adapter_slot=slot)

    def _advance(self) -> None:
        """Move every row one token on."""
        segments = tuple(Segment(place, row.position, 1) for place, row in enumerate(self._rows))
        tokens = [row.last_token for row in self._rows]
        positions = [row.position for row in self._rows]
        slots = [row.adapter_slot for row in self._rows]
        self._reserve(len(self._rows), max(positions) + 1)
        hidden_SC = self._pass(tokens, positions, segments, slots)
        for row in self._rows:
            row.position += 1
        self._choose(list(range(len(self._rows))), hidden_SC)

    def _reserve(self, n_slots: int, n_positions: int) -> None:
        """Make room for so many slots and positions."""
        self._cache.reserve(n_slots, n_positions, max([row.request.n_positions for row in self._rows], default=1))

    def _pass(
        self,
        tokens: list[int],
        positions: list[int],
        segments: tuple[Segment, ...],
        slots: list[int | None],
        *,
        ends_only: bool = True,
    ) -> Tensor:
        """Return the last hidden state of each segment's end, or of all tokens; for the slots there is room."""
        self.n_steps += 1
        return self._passes.run(tokens, positions, segments, slots, ends_only=ends_only)

    def _choose(self, places: list[int], hidden_SC: Tensor) -> None:
        """Choose the next token of the rows, hand it out, and end the rows that are complete."""
        rows = [self._rows[place] for place in places]
        logits_SV = self._passes.logits(hidden_SC)
        allowed_SV = allowed([row.matcher for row in rows], logits_SV.shape[1], logits_SV.device)
        tokens, logprobs, tops = choose(logits_SV, [row.sampling for row in rows], allowed_SV)
        ended: list[int] = []
        said: dict[int, tuple[Request, list[Token]]] = {}
        broken: dict[int, tuple[Request, Exception]] = {}
        for place, row, token, logprob, top in zip(places, rows, tokens, logprobs, tops, strict=True):
            if math.isnan(logprob):
                self._cache.clear(place)
                broken[id(row.request)] = (row.request, FloatingPointError("what the model says is not finite"))
                continue
            try:
                finish = row.take(token)
            except GrammarBroken as error:
                broken[id(row.request)] = (row.request, error)
                continue
            told = Token(row.index, token, logprob, finish, top, row.n_cached if row.n_sampled == 1 else 0)
            said.setdefault(id(row.request), (row.request, []))[1].append(told)
            if finish is not None:
                ended.append(place)
        for request, error in broken.values():
            said.pop(id(request), None)
            self._fail([request], error)
        for place in reversed(ended):
            self._remove(place)
        for request, news in said.values():
            request.emit(news)

    def _remove(self, place: int) -> None:
        """Take a row out; the last row moves into its slot, so that slots stay without gaps."""
        self._waiting.ended()
        self._prefixes.keep(self._rows[place], place)
        last = len(self._rows) - 1
        if place != last:
            self._cache.copy(last, place, self._rows[last].position)
            self._rows[place] = self._rows[last]
        self._rows.pop()

    @torch.inference_mode()
    def _recover(self, error: Exception) -> None:
        """Tell whoever was in the pass that failed. Of newcomers each is tried alone; those under way go on beside them."""
        self._prefixes.clear()  # which may be the memory that is wanting
        newcomers, self._admitted = self._admitted, []
        if not newcomers:
            self._fail([row.request for row in self._rows], error)
            self._rows.clear()
            self._cache.release()
        for newcomer in newcomers:
            del self._rows[self._n_under_way :]
            try:
                if len(newcomers) == 1:
                    raise error
                self._take_in([newcomer])
                self._n_under_way = len(self._rows)
            except Exception as reason:  # noqa: BLE001 - it is told to who asked, as in _run
                del self._rows[self._n_under_way :]
                self._fail([newcomer.request], reason)

    def _fail(self, requests: list[Request], error: Exception) -> None:
        told = {id(request): request for request in requests}
        self._waiting.keep(lambda request: id(request) not in told)
        for request in told.values():
            request.broken = True
            request.cancelled.set()  # the rows that it has left are dropped with the next turn
            request.emit(error)
