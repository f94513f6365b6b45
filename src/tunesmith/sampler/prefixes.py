# pyright: basic
"""Beginnings of prompts that were computed before: kept when their row ends, copied where a prompt begins like them.

A beginning is anybody's whose prompt has the same first tokens, within one project and on the same adapter: what another
project asked stays unknown, and the keys and values are those that would be computed again, but for rounding.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from tunesmith.sampler.cache import SlotCache
from tunesmith.sampler.request import Request, Row

#: A beginning of fewer tokens is not worth the copy.
N_LEAST: Final = 32
N_MAX_KEPT: Final = 128

Owner = tuple[str, str, str]
"""Project, and name and sha256 of the adapter: empty for the bare base."""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The keys and values of an ended row, with the tokens (T) that they are of."""

    owner: Owner
    tokens_T: Tensor
    layers: list[Tensor]
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Beginning:
    """The first `n` tokens of a prompt lie in the slot of a row under way, or are kept."""

    n: int
    place: int | None = None
    kept: Kept | None = None


class Prefixes:
    """What is kept: at most half of the memory that rows may take, and only what they leave; the least used goes first."""

    def __init__(self, cache: SlotCache, *, wanted: bool) -> None:
        self._cache = cache
        self._wanted = wanted
        #: The least recently used first.
        self._kept: list[Kept] = []
        self.n_bytes = 0
        cache.before_growth = self._make_room

    def find(self, request: Request, rows: Iterable[Row]) -> Beginning | None:
        """Return the longest beginning of a prompt that there is; at least the last token of a prompt is always computed."""
        if not self._wanted or request.prompt_logprobs or len(request.prompt) <= N_LEAST:
            return None
        owner, prompt_T = _owner(request), _tokens(request)[:-1]
        best: Beginning | None = None
        n_best = N_LEAST - 1
        for place, row in enumerate(rows):
            other = row.request
            if row.index == 0 and not other.broken and len(other.prompt) > N_LEAST and _owner(other) == owner:
                n = _n_common(prompt_T, _tokens(other), n_best)
                if n > n_best:
                    best, n_best = Beginning(n, place=place), n
        for kept in reversed(self._kept):
            if kept.owner == owner:
                n = _n_common(prompt_T, kept.tokens_T, n_best)
                if n > n_best:
                    best, n_best = Beginning(n, kept=kept), n
        if best is not None and best.kept is not None:
            self._use(best.kept)
        return best

    def copy(self, beginning: Beginning, slot: int) -> None:
        """Put a beginning into the slot of a row that is taken in."""
        if beginning.place is not None:
            self._cache.copy(beginning.place, slot, beginning.n)
        elif beginning.kept is not None:
            self._cache.put(slot, beginning.kept.layers, beginning.n)

    def keep(self, row: Row, place: int) -> None:
        """Keep what is in the slot of a row that ends: its prompt, and its answer as far as that was read."""
        request, n = row.request, row.position
        n_bytes = n * self._cache.position_bytes
        if not self._wanted or row.index or request.broken or n < N_LEAST or n_bytes > self._cache.max_bytes // 2:
            return
        owner, tokens_T = _owner(request), torch.tensor((request.prompt + row.sampled)[:n], dtype=torch.int32)
        for kept in [kept for kept in self._kept if kept.owner == owner]:
            n_common = _n_common(tokens_T, kept.tokens_T, -1)
            if n_common == n:
                self._use(kept)
                return
            if n_common == len(kept.tokens_T):
                self._drop(kept)
        while self._kept and (self._left() < n_bytes or len(self._kept) >= N_MAX_KEPT):
            self._drop(self._kept[0])
        if self._left() >= n_bytes:
            self._kept.append(Kept(owner, tokens_T, self._cache.take(place, n), n_bytes))
            self.n_bytes += n_bytes

    def forget(self, adapter_name: str) -> None:
        """Drop what was computed with an adapter."""
        for kept in [kept for kept in self._kept if kept.owner[1] == adapter_name]:
            self._drop(kept)

    def clear(self) -> None:
        """Drop all."""
        self._kept.clear()
        self.n_bytes = 0

    def _left(self) -> int:
        return min(self._cache.max_bytes // 2, self._cache.max_bytes - self._cache.n_bytes) - self.n_bytes

    def _make_room(self, n_slot_bytes: int) -> None:
        while self._kept and self.n_bytes + n_slot_bytes > self._cache.max_bytes:
            self._drop(self._kept[0])

    def _use(self, kept: Kept) -> None:
        self._kept.remove(kept)
        self._kept.append(kept)

    def _drop(self, kept: Kept) -> None:
        self._kept.remove(kept)
        self.n_bytes -= kept.n_bytes


def _owner(request: Request) -> Owner:
    return (
        (request.project, "", "") if request.adapter is None else (request.project, request.adapter[0], request.adapter[2])
    )


def _tokens(request: Request) -> Tensor:
    if request.prompt_T is None:
        request.prompt_T = torch.tensor(request.prompt, dtype=torch.int32)
    return request.prompt_T


def _n_common(one_T: Tensor, other_T: Tensor, n_best: int) -> int:
    """Return how many first tokens two have in common; 0 when these are no more than `n_best`."""
    n = min(len(one_T), len(other_T))
    if n <= n_best or not torch.equal(one_T[: n_best + 1], other_T[: n_best + 1]):
        return 0
    different = (one_T[:n] != other_T[:n]).nonzero()
    return n if not len(different) else int(different[0])
