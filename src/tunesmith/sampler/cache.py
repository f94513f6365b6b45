# pyright: basic
"""Keys and values of the rows being sampled: one slot a row, slots 0 to n-1 without gaps, all layers' tensors bounded.

Shapes: S slots, K key heads, P positions held, D head size.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

_N_MIN_POSITIONS: Final = 256


@dataclass(slots=True)
class SlotCache:
    """Grows by doubling in slots and positions as rows use it, never beyond `max_bytes`; `release` lets all of it go."""

    max_bytes: int
    n_slots: int = 0
    n_positions: int = 0
    keys_SKPD: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    values_SKPD: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    #: Bytes of one position of one slot over all layers; learnt from the first pass.
    position_bytes: int = 0
    #: Told the bytes that slots are about to take, so that nothing else takes them.
    before_growth: Callable[[int], None] = lambda _: None

    def room(self, n_positions: int) -> int:
        """Return how many slots of so many positions stay within the bound."""
        return self.max_bytes // max(1, n_positions * self.position_bytes)

    def reserve(self, n_slots: int, n_positions: int, most_positions: int) -> None:
        """Make room for rows that hold so many positions now and at most `most_positions` later; what is held stays.

        The caller has asked `room(most_positions)`: what is taken never exceeds the bound.
        """
        if n_slots <= self.n_slots and n_positions <= self.n_positions:
            return
        slots = _doubled(max(n_slots, self.n_slots), 1)
        positions = _doubled(max(n_positions, self.n_positions), _N_MIN_POSITIONS)
        if slots * positions * self.position_bytes > self.max_bytes:
            slots, positions = n_slots, most_positions
        self.before_growth(slots * positions * self.position_bytes)
        kept = slice(0, min(slots, self.n_slots)), slice(None), slice(0, min(positions, self.n_positions))
        for tensors in (self.keys_SKPD, self.values_SKPD):
            for layer, old in tensors.items():
                # Zeros: a masked position weighs nothing, and nothing times what lay in fresh memory could be NaN.
                new = old.new_zeros(slots, old.shape[1], positions, old.shape[3])
                new[kept] = old[kept]
                tensors[layer] = new
        self.n_slots, self.n_positions = slots, positions

    def release(self) -> None:
        """Let the memory go; to be called when no slot is in use."""
        for tensors in (self.keys_SKPD, self.values_SKPD):
            for layer, old in tensors.items():
                tensors[layer] = old.new_zeros(0, old.shape[1], 0, old.shape[3])
        self.n_slots, self.n_positions = 0, 0

    @property
    def n_bytes(self) -> int:
        """What is held now."""
        return self.n_slots * self.n_positions * self.position_bytes

    def layer(self, index: int, key_1KTD: Tensor, value_1KTE: Tensor) -> tuple[Tensor, Tensor]:
        """Return a layer's tensors, made on its first pass in the form that its keys and values have."""
        if index not in self.keys_SKPD:
            for tensors, like in ((self.keys_SKPD, key_1KTD), (self.values_SKPD, value_1KTE)):
                tensors[index] = like.new_zeros(self.n_slots, like.shape[1], self.n_positions, like.shape[3])
            self.position_bytes += sum(
                like.shape[1] * like.shape[3] * like.element_size() for like in (key_1KTD, value_1KTE)
            )
        return self.keys_SKPD[index], self.values_SKPD[index]

    def copy(self, source: int, target: int, n_positions: int) -> None:
        """Copy the first positions of a slot into another."""
        for tensors in (self.keys_SKPD, self.values_SKPD):
            for tensor in tensors.values():
                tensor[target, :, :n_positions] = tensor[source, :, :n_positions]

    def take(self, slot: int, n_positions: int) -> list[Tensor]:
        """Return a copy of the first positions of a slot, for `put`."""
        return [tensor[slot, :, :n_positions].clone() for tensor in self._tensors()]

    def put(self, slot: int, taken: list[Tensor], n_positions: int) -> None:
        """Fill the first positions of a slot with those of another that were taken."""
        for tensor, taken_KPD in zip(self._tensors(), taken, strict=True):
            tensor[slot, :, :n_positions] = taken_KPD[:, :n_positions]

    def _tensors(self) -> list[Tensor]:
        return [tensor for tensors in (self.keys_SKPD, self.values_SKPD) for tensor in tensors.values()]


@dataclass(frozen=True, slots=True)
class Segment:
    """Some tokens of the packed row belong to one slot: `n_tokens` of them, the first at position `start`."""

    slot: int
    start: int
    n_tokens: int

    @property
    def end(self) -> int:
        """The position after its last token."""
        return self.start + self.n_tokens


@dataclass(frozen=True, slots=True)
class Decoding:
    """A row that is one token of each slot in order: what all layers need of it is made once, not layer by layer."""

    #: 0 to S-1, and the position of each slot's token.
    rows_S: Tensor
    positions_S: Tensor
    #: How many positions the longest slot has, its new token included; known here so that no layer asks the device.
    n_past: int
    #: Who sees whom as (S, 1, 1, P), by the window's width.
    masks: dict[int | None, Tensor] = field(default_factory=dict[int | None, Tensor])

    def mask(self, window: int | None) -> Tensor:
        """Return which positions each slot's token sees: its own, and those before it that the window holds."""
        if window not in self.masks:
            column_P = torch.arange(self.n_past, device=self.positions_S.device)
            seen_SP = column_P[None] <= self.positions_S[:, None]
            if window is not None:
                seen_SP &= column_P[None] > self.positions_S[:, None] - window
            self.masks[window] = seen_SP[:, None, None]
        return self.masks[window]


@dataclass(frozen=True, slots=True)
class Slots:
    """What the attention is told of a packed row: whose tokens they are and where the past is."""

    cache: SlotCache
    segments: tuple[Segment, ...]
    #: Set when every segment is one token and segment i is slot i.
    decoding: Decoding | None


def decoding(segments: tuple[Segment, ...], device: torch.device) -> Decoding | None:
    """Return what one batched product needs when the row is one token of each slot in order, else None."""
    if any(segment.n_tokens != 1 or segment.slot != index for index, segment in enumerate(segments)):
        return None
    positions = [segment.start for segment in segments]
    rows_S = torch.arange(len(segments), device=device)
    return Decoding(rows_S, torch.tensor(positions, device=device), max(positions) + 1)


def _doubled(wanted: int, least: int) -> int:
    size = least
    while size < wanted:
        size *= 2
    return size
