# pyright: basic
"""Keys and values of the rows being sampled: one slot a row, slots 0 to n-1 without gaps, all layers' tensors bounded.

Shapes: S slots, K key heads, P positions held, D head size.
"""

from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

_N_MIN_POSITIONS: Final = 256


@dataclass(slots=True)
class SlotCache:
    """Grows by doubling in slots and positions as rows need it, up to `max_bytes`, and never shrinks."""

    max_bytes: int
    n_slots: int = 0
    n_positions: int = 0
    keys_SKPD: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    values_SKPD: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    #: Bytes of one position of one slot over all layers; learnt from the first pass.
    position_bytes: int = 0

    def fits(self, n_slots: int, n_positions: int) -> bool:
        """Say whether so many rows of so many positions stay within the bound; a single row always may."""
        slots, positions = self._grown(n_slots, n_positions)
        return n_slots <= 1 or slots * positions * self.position_bytes <= self.max_bytes

    def reserve(self, n_slots: int, n_positions: int) -> None:
        """Make room; what is held stays."""
        slots, positions = self._grown(n_slots, n_positions)
        if (slots, positions) == (self.n_slots, self.n_positions):
            return
        for tensors in (self.keys_SKPD, self.values_SKPD):
            for layer, old in tensors.items():
                new = old.new_zeros(slots, old.shape[1], positions, old.shape[3])
                new[: self.n_slots, :, : self.n_positions] = old
                tensors[layer] = new
        self.n_slots, self.n_positions = slots, positions

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

    def _grown(self, n_slots: int, n_positions: int) -> tuple[int, int]:
        slots, positions = max(self.n_slots, 1), max(self.n_positions, _N_MIN_POSITIONS)
        while slots < n_slots:
            slots *= 2
        while positions < n_positions:
            positions *= 2
        return slots, positions


@dataclass(frozen=True, slots=True)
class Segment:
    """Some tokens of the packed row belong to one slot: `n_tokens` of them, the first at position `start`."""

    slot: int
    start: int
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Slots:
    """What the attention is told of a packed row: whose tokens they are and where the past is."""

    cache: SlotCache
    segments: tuple[Segment, ...]
    #: Positions of the tokens, when every segment is one token and segment i is slot i; else None.
    decode_positions_S: Tensor | None


def decoding(segments: tuple[Segment, ...], device: torch.device) -> Tensor | None:
    """Return the positions when the row is one token of each slot in order, which goes through one batched product."""
    if any(segment.n_tokens != 1 or segment.slot != index for index, segment in enumerate(segments)):
        return None
    return torch.tensor([segment.start for segment in segments], device=device)
