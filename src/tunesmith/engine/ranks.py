# pyright: basic
"""Several processes at one training: each computes a part of every step, all apply the same update.

Gradients and counts are summed over the processes before the loop's one division, so that how many there are changes what
is computed where, and nothing of the mathematics. One process is the normal case and pays nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process, `rank` of `size`."""

    rank: int = 0
    size: int = 1
    #: The base is spread over the processes, which therefore have to make the same number of passes.
    spread: bool = False

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def mine(self, items: Iterable[T]) -> Iterable[T]:
        """Return this process's part of items that all processes have in the same order."""
        return items if self.size == 1 else list(items)[self.rank :: self.size]

    def rounds(self, items: Iterable[T]) -> Iterator[tuple[T, bool]]:
        """Yield this process's part, each with True; over a spread base then others' with False, to keep company."""
        if self.size == 1:
            yield from ((item, True) for item in items)
            return
        every = list(items)
        n_rounds = -(-len(every) // self.size)
        for number in range(n_rounds):
            place = number * self.size + self.rank
            if place < len(every):
                yield every[place], True
            elif self.spread:
                yield every[-1], False

    def portion(self, n_tokens: int, token_budget: int) -> int:
        """Return the tokens of a micro-batch when so many are to go round: every process is to get some."""
        return token_budget if self.size == 1 else max(1, min(token_budget, -(-n_tokens // self.size)))

    def add(self, tensor: Tensor) -> None:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum gradients over all processes; a process that computed none has nought."""
        if self.size == 1:
            return
        grads = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        dist.all_reduce(flat)
        for parameter, grad, part in zip(parameters, grads, flat.split([grad.numel() for grad in grads]), strict=True):
            parameter.grad = part.view_as(grad).clone()

    def pooled(self, mine: T) -> list[T]:
        """Return every process's object, in the order of the processes."""
        if self.size == 1:
            return [mine]
        every: list[Any] = [None] * self.size
        dist.all_gather_object(every, mine)
        return every

    def word(self, flag: bool) -> bool:
        """Return what the first process says, whatever the others do."""
        return self.pooled(flag)[0]


ALONE: Final = Ranks()
