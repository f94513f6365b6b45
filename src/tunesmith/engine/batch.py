# pyright: basic
"""From examples to packed rows: micro-batches within a token budget, and several jobs' micro-batches side by side.

Shapes: T tokens of a row, N trained tokens.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tunesmith.lm.lora import Span
from tunesmith.lm.score import Packed

if TYPE_CHECKING:
    from tunesmith.data.render import Example


@dataclass(frozen=True, slots=True)
class Document:
    """One example in a compact form: token ids, and which of them are trained with what weight."""

    tokens: array  # of C longs
    #: Indices of the trained tokens (never the first: nothing predicts it) and their weights.
    trained: array
    weights: array

    @classmethod
    def of(cls, example: "Example") -> "Document":
        """Compress an example; tokens of weight 0 are context and are not scored at all."""
        trained = [i for i, weight in enumerate(example.weights) if weight and i]
        return cls(array("l", example.tokens), array("l", trained), array("f", [example.weights[i] for i in trained]))

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Documents of one job that go through the model together."""

    tokens_T: Tensor
    positions_T: Tensor
    lengths: tuple[int, ...]
    #: Index of the token after which each trained token is predicted.
    asked_N: Tensor
    targets_N: Tensor
    weights_N: Tensor

    @property
    def n_tokens(self) -> int:
        """Tokens of the row."""
        return len(self.tokens_T)


def pack(documents: Sequence[Document]) -> MicroBatch:
    """Lay documents side by side, without padding."""
    tokens, positions, asked, targets, weights = array("l"), array("l"), array("l"), array("l"), array("f")
    for document in documents:
        start = len(tokens)
        tokens.extend(document.tokens)
        positions.extend(range(len(document)))
        asked.extend(start + i - 1 for i in document.trained)
        targets.extend(document.tokens[i] for i in document.trained)
        weights.extend(document.weights)
    longs = [torch.tensor(values, dtype=torch.long) for values in (tokens, positions, asked, targets)]
    lengths = tuple(len(document) for document in documents)
    return MicroBatch(longs[0], longs[1], lengths, longs[2], longs[3], torch.tensor(weights, dtype=torch.float32))


def micro_batches(documents: Iterable[Document], *, token_budget: int) -> Iterator[MicroBatch]:
    """Split a step's documents, in their order, into rows of at most `token_budget` tokens.

    A document that is longer than the budget gets a row of its own. Documents without a trained token are left out: they
    cannot change the gradient.
    """
    held: list[Document] = []
    n_held = 0
    for document in documents:
        if not document.trained:
            continue
        if held and n_held + len(document) > token_budget:
            yield pack(held)
            held, n_held = [], 0
        held.append(document)
        n_held += len(document)
    if held:
        yield pack(held)


@dataclass(frozen=True, slots=True)
class Joined:
    """Micro-batches of several jobs in one row, and which trained tokens are whose."""

    packed: Packed
    #: Number of trained tokens of each micro-batch, in order.
    n_trained: tuple[int, ...]


def join(parts: Sequence[tuple[int, MicroBatch]]) -> Joined:
    """Lay micro-batches of several jobs side by side; each comes with the slot of its adapter."""
    spans: list[Span] = []
    asked: list[Tensor] = []
    start = 0
    for slot, micro in parts:
        spans.append(Span(slot, start, start + micro.n_tokens))
        asked.append(micro.asked_N + start)
        start += micro.n_tokens
    micros = [micro for _, micro in parts]
    packed = Packed(
        tokens_T=torch.cat([micro.tokens_T for micro in micros]),
        positions_T=torch.cat([micro.positions_T for micro in micros]),
        lengths=tuple(length for micro in micros for length in micro.lengths),
        spans=tuple(spans),
        asked_N=torch.cat(asked),
        targets_N=torch.cat([micro.targets_N for micro in micros]),
    )
    return Joined(packed, tuple(len(micro.targets_N) for micro in micros))
