# pyright: basic
"""One pass over a packed row: by the forward of our own where the decoder is proven to be of its form, else by its modules.

Shapes: T tokens of the row, N of them asked for, S rows, C hidden size, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import structlog
import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.lm.load import Base
from tunesmith.lm.lora import LoraModel, Span
from tunesmith.sampler.attention import Knobs
from tunesmith.sampler.cache import Segment, SlotCache, Slots, decoding, ends
from tunesmith.sampler.forward import Asked, Forward, recognised
from tunesmith.sampler.products import Stacks, few, multiply, n_columns

log = structlog.get_logger()

#: How far our hidden states may lie from those of the modules, as relative L2: rounding, in another order.
_TOLERANCE: Final = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
_N_PROOF_TOKENS: Final = (11, 6)


class Passes:
    """What stands between tokens and hidden states: base, adapters, and the slots of the rows."""

    def __init__(self, base: Base, lora: LoraModel, cache: SlotCache, *, context_length: int) -> None:
        """Make passes by the modules, learn the form of the cache from them, and do without them where that is proven."""
        self._base, self._lora, self._cache = base, lora, cache
        self._stacks = Stacks(lora.route.slots)
        self._forward: Forward | None = None
        #: Tokens that a pass over several prompts should have: what lies between a layer's products then stays in a
        #: processor's cache.
        self.n_tokens = 1024 if base.device.type == "cpu" else 4096
        self._prepare(context_length)

    @property
    def by_modules(self) -> bool:
        """Whether passes are the modules' own."""
        return self._forward is None

    def refresh(self) -> None:
        """Read the adapters anew: they have been trained meanwhile."""
        self._stacks.refresh()

    def tidy(self) -> None:
        """Let go of adapters that are not resident any more."""
        self._stacks.prune()

    def run(
        self,
        tokens: list[int],
        positions: list[int],
        segments: tuple[Segment, ...],
        adapters: Sequence[int | None],
        *,
        ends_only: bool = False,
    ) -> Tensor:
        """Return the last hidden states of a row (T, C), or of the last token of each segment (N, C).

        `adapters` are the segments'. Slots and positions are reserved; the segments' slots follow one another.
        """
        device, cache = self._base.device, self._cache
        slots = Slots(cache, segments, decoding(segments, cache.n_positions, device))
        if self._forward is None:
            return self._by_modules(tokens, positions, slots, adapters, ends_only=ends_only)
        if slots.decoding is not None:
            missing = self._forward.n_columns(len(tokens)) - len(tokens)
            corrections = self._stacks.by_column([*adapters, *[adapters[-1]] * missing])
            return self._forward(tokens, positions, slots, corrections)
        corrections = self._stacks.by_span(_spans(segments, adapters))
        asked = None
        if ends_only:
            missing = self._forward.n_columns(len(segments)) - len(segments)
            asked = Asked(
                last_places(segments),
                ends(segments, cache.n_positions, device),
                self._stacks.by_column([*adapters, *[adapters[-1]] * missing]),
            )
        return self._forward(tokens, positions, slots, corrections, asked)

    def logits(self, hidden_SC: Tensor) -> Tensor:
        """Return the logits in fp32 (S, V), as a fresh buffer."""
        head, n_rows = self._base.head, hidden_SC.shape[0]
        if self._forward is None:
            return head.logits(hidden_SC)
        missing = n_columns(n_rows, head.weight_VC) - n_rows
        hidden_SC = F.pad(hidden_SC, (0, 0, 0, missing)) if missing else hidden_SC
        raw_VS = multiply(head.weight_VC, few(hidden_SC), head.bias_V)
        raw_SV = torch.empty(n_rows, raw_VS.shape[0], dtype=torch.float32, device=raw_VS.device)
        return head.finished(raw_SV.copy_(raw_VS.t()[:n_rows]))

    def _by_modules(
        self,
        tokens: list[int],
        positions: list[int],
        slots: Slots,
        adapters: Sequence[int | None],
        *,
        ends_only: bool = False,
        seen: dict[int, Knobs] | None = None,
    ) -> Tensor:
        device = self._base.device
        self._lora.route.spans = _spans(slots.segments, adapters)
        more: dict[str, Any] = {} if seen is None else {"tunesmith_seen": seen}
        try:
            output = self._base.decoder(
                input_ids=torch.tensor([tokens], device=device),
                position_ids=torch.tensor([positions], device=device),
                use_cache=False,
                tunesmith_slots=slots,
                **more,
            )
        finally:
            self._lora.route.spans = ()
        hidden_TC = output.last_hidden_state[0]
        return hidden_TC if not ends_only else hidden_TC[torch.tensor(last_places(slots.segments), device=device)]

    def _prepare(self, context_length: int) -> None:
        """Prove the forward of our own on two prompts and a step beyond them, one of them at the end of the context."""
        generator = torch.Generator().manual_seed(0)
        n_vocabulary = self._base.head.weight_VC.shape[0]
        beyond = [length + 1 for length in _N_PROOF_TOKENS]
        tokens = [torch.randint(n_vocabulary, (length,), generator=generator).tolist() for length in beyond]
        offsets = (0, max(0, context_length - beyond[1]))
        seen: dict[int, Knobs] = {}

        def both(*, by_modules: bool) -> list[Tensor]:
            """Return the hidden states of the prompts, and of the step after them."""
            found: list[Tensor] = []
            for step in (False, True):
                cuts = [slice(n - 1, n) if step else slice(0, n - 1) for n in beyond]
                segments = tuple(Segment(i, cut.start, cut.stop - cut.start) for i, cut in enumerate(cuts))
                row = [token for each, cut in zip(tokens, cuts, strict=True) for token in each[cut]]
                places = [at + i for at, cut in zip(offsets, cuts, strict=True) for i in range(cut.start, cut.stop)]
                self._cache.reserve(2, max(beyond), max(beyond))
                if by_modules:
                    slots = Slots(self._cache, segments, decoding(segments, self._cache.n_positions, self._base.device))
                    found.append(self._by_modules(row, places, slots, [None, None], seen=seen))
                else:
                    found.append(self.run(row, places, segments, [None, None]))
            self._cache.release()
            return found

        with torch.inference_mode():
            expected = both(by_modules=True)
        if not recognised(self._base.decoder):
            return
        with torch.no_grad():  # the joined weights are to be trained over
            self._forward = Forward(self._base.decoder, seen)
        with torch.inference_mode():
            distance = max(_distance(*pair) for pair in zip(both(by_modules=False), expected, strict=True))
        if not distance <= _TOLERANCE.get(self._base.dtype, 0.0):
            log.warning("sampler.modules", model=type(self._base.model).__name__, distance=distance)
            self._forward = None


def portions(lengths: Sequence[int], n_tokens: int) -> Iterator[slice]:
    """Cut prompts into passes of about so many tokens, each of whole prompts."""
    first, n = 0, 0
    for place, length in enumerate(lengths):
        if n and n + length > n_tokens:
            yield slice(first, place)
            first, n = place, 0
        n += length
    yield slice(first, len(lengths))


def last_places(segments: Sequence[Segment]) -> list[int]:
    """Return the place in the row of each segment's last token."""
    places, stop = [], 0
    for segment in segments:
        stop += segment.n_tokens
        places.append(stop - 1)
    return places


def _distance(found_TC: Tensor, expected_TC: Tensor) -> float:
    return float((found_TC.float() - expected_TC.float()).norm() / expected_TC.float().norm())


def _spans(segments: Sequence[Segment], adapters: Sequence[int | None]) -> tuple[Span, ...]:
    """Lead neighbouring segments of one adapter through it as one span; segments of the bare base through none."""
    spans: list[Span] = []
    start = 0
    for segment, slot in zip(segments, adapters, strict=True):
        stop = start + segment.n_tokens
        if slot is not None:
            if spans and spans[-1].adapter == slot and spans[-1].stop == start:
                spans[-1] = Span(slot, spans[-1].start, stop)
            else:
                spans.append(Span(slot, start, stop))
        start = stop
    return tuple(spans)
