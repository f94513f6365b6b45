# pyright: basic
"""Keys and values of the rows being sampled: one slot a row, slots 0 to n-1 without gaps, all layers' tensors bounded.

Shapes: S slots, K key heads, P positions held, D, E sizes of a key and of a value, F = K (D + E), T tokens of a row.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

_N_MIN_POSITIONS: Final = 256


class Store:
    """One layer's keys and values: of every position the keys of all heads, then the values, so that one copy moves both."""

    __slots__ = ("_form", "keys_SKPD", "rows_SPF", "values_SKPE")

    def __init__(self, rows_SPF: Tensor, form: tuple[int, int]) -> None:
        """`form` is how many key heads there are, and how many numbers of a position are keys."""
        self._form = form
        self.put(rows_SPF)

    def put(self, rows_SPF: Tensor) -> None:
        """Go on with other memory."""
        n_heads, n_keys = self._form
        self.rows_SPF = rows_SPF
        self.keys_SKPD = rows_SPF[..., :n_keys].unflatten(-1, (n_heads, -1)).transpose(1, 2)
        self.values_SKPE = rows_SPF[..., n_keys:].unflatten(-1, (n_heads, -1)).transpose(1, 2)

    def write(self, rows_TF: Tensor, slots: "Slots") -> None:
        """Write the keys and values of a row's tokens into their slots; tokens beyond the last segment are left out."""
        step = slots.decoding
        if step is not None:
            self.rows_SPF.flatten(0, 1).index_copy_(0, step.places_S, rows_TF[: step.n_rows])
            return
        start = 0
        for segment in slots.segments:
            stop = start + segment.n_tokens
            self.rows_SPF[segment.slot, segment.start : segment.start + segment.n_tokens] = rows_TF[start:stop]
            start = stop


@dataclass(slots=True)
class SlotCache:
    """Grows by doubling in slots and positions as rows use it, never beyond `max_bytes`; `release` lets all of it go."""

    max_bytes: int
    n_slots: int = 0
    n_positions: int = 0
    stores: dict[int, Store] = field(default_factory=dict[int, Store])
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
        kept = slice(0, min(slots, self.n_slots)), slice(0, min(positions, self.n_positions))
        for store in self.stores.values():
            old = store.rows_SPF
            # Zeros: a masked position weighs nothing, and nothing times what lay in fresh memory could be NaN.
            new = old.new_zeros(slots, positions, old.shape[2])
            new[kept] = old[kept]
            store.put(new)
        self.n_slots, self.n_positions = slots, positions

    def release(self) -> None:
        """Let the memory go; to be called when no slot is in use."""
        for store in self.stores.values():
            store.put(store.rows_SPF.new_zeros(0, 0, store.rows_SPF.shape[2]))
        self.n_slots, self.n_positions = 0, 0

    @property
    def n_bytes(self) -> int:
        """What is held now."""
        return self.n_slots * self.n_positions * self.position_bytes

    def store(self, index: int, n_heads: int, n_keys: int, like_TF: Tensor) -> Store:
        """Return a layer's store, made on its first pass in the form that its keys and values have."""
        if index not in self.stores:
            n_numbers = like_TF.shape[-1]
            self.stores[index] = Store(like_TF.new_zeros(self.n_slots, self.n_positions, n_numbers), (n_heads, n_keys))
            self.position_bytes += n_numbers * like_TF.element_size()
        return self.stores[index]

    def copy(self, source: int, target: int, n_positions: int) -> None:
        """Copy the first positions of a slot into another."""
        for store in self.stores.values():
            store.rows_SPF[target, :n_positions] = store.rows_SPF[source, :n_positions]

    def clear(self, slot: int) -> None:
        """Write zeros over a slot in which numbers may lie that are not finite: they would spoil who comes after."""
        for store in self.stores.values():
            store.rows_SPF[slot].zero_()

    def take(self, slot: int, n_positions: int) -> list[Tensor]:
        """Return a copy of the first positions of a slot, for `put`."""
        return [store.rows_SPF[slot, :n_positions].clone() for store in self.stores.values()]

    def put(self, slot: int, taken: list[Tensor], n_positions: int) -> None:
        """Fill the first positions of a slot with those of another that were taken."""
        for store, taken_PF in zip(self.stores.values(), taken, strict=True):
            store.rows_SPF[slot, :n_positions] = taken_PF[:n_positions]


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
    """One token of each of some slots that lie side by side: what all layers need of it is made once, not layer by layer."""

    first: int
    n_rows: int
    positions_S: Tensor
    #: Where the tokens' keys and values lie in a store whose slots and positions are one dimension.
    places_S: Tensor
    #: How many positions the longest slot has, its new token included; known here so that no layer asks the device.
    n_past: int
    #: Whether all slots are as long as the longest.
    even: bool
    #: What is added to the scores as (S, 1, 1, P), by the window's width.
    masks: dict[int | None, Tensor | None] = field(default_factory=dict[int | None, Tensor | None])

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """Return minus infinity for the positions that a slot's token does not see, zero for those that it sees.

        It sees its own, and those before it that the window holds; None where all see all.
        """
        if window not in self.masks:
            self.masks[window] = self._mask(window, dtype)
        return self.masks[window]

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        if self.even and (window is None or self.n_past <= window):
            return None
        column_P = torch.arange(self.n_past, device=self.positions_S.device)
        hidden_SP = column_P[None] > self.positions_S[:, None]
        if window is not None:
            hidden_SP |= column_P[None] <= self.positions_S[:, None] - window
        zeros_SP = torch.zeros(hidden_SP.shape, dtype=dtype, device=hidden_SP.device)
        return zeros_SP.masked_fill_(hidden_SP, -torch.inf)[:, None, None]


@dataclass(frozen=True, slots=True)
class Slots:
    """What the attention is told of a packed row: whose tokens they are and where the past is."""

    cache: SlotCache
    segments: tuple[Segment, ...]
    #: Set when every segment is one token and the segments' slots follow one another.
    decoding: Decoding | None


def decoding(segments: tuple[Segment, ...], n_positions: int, device: torch.device) -> Decoding | None:
    """Return what one batched product needs when the row is one token of each of slots side by side, else None.

    `n_positions` is what each slot of the cache holds.
    """
    first = segments[0].slot
    if any(segment.n_tokens != 1 or segment.slot != first + index for index, segment in enumerate(segments)):
        return None
    return ends(segments, n_positions, device)


def ends(segments: tuple[Segment, ...], n_positions: int, device: torch.device) -> Decoding:
    """Return the same for the last token of each segment; the segments' slots follow one another."""
    first, positions = segments[0].slot, [segment.start + segment.n_tokens - 1 for segment in segments]
    places = [(first + index) * n_positions + position for index, position in enumerate(positions)]
    numbers_2S = torch.tensor([positions, places], device=device)
    longest = max(positions)
    return Decoding(first, len(segments), numbers_2S[0], numbers_2S[1], longest + 1, even=min(positions) == longest)


def _doubled(wanted: int, least: int) -> int:
    size = least
    while size < wanted:
        size *= 2
    return size
