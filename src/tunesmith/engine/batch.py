# pyright: basic
"""From documents to packed rows: micro-batches within a token budget, and several jobs' micro-batches side by side.

Documents of a step that begin alike (a long system prompt, the samples of one prompt) become one tree, whose stem goes
through the model once; gradients are the same.

Shapes: T tokens of a row, N trained tokens, B branches (a document that is no tree counts as one).
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from tunesmith.engine.document import Document, n_common, tree
from tunesmith.lm.attention import Piece
from tunesmith.lm.lora import Span
from tunesmith.lm.score import Packed

#: Tokens that documents have to begin with alike to be looked at as one tree.
N_LEAST_STEM: Final = 16
#: Part of a tree's tokens that has to be saved by it: attention is slower over trees than over plain documents.
_WORTHWHILE: Final = 1 / 8


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Documents of one job that go through the model together."""

    tokens_T: Tensor
    positions_T: Tensor
    lengths: tuple[Piece, ...]
    #: Index of the token after which each trained token is predicted.
    asked_N: Tensor
    targets_N: Tensor
    weights_N: Tensor
    #: Trained tokens of each branch, in order; they sum to N.
    n_trained: tuple[int, ...]
    #: What the sampler said of the trained tokens when it chose them.
    before_N: Tensor | None = None
    #: What the reference says of all trained tokens of each branch together.
    reference_B: Tensor | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens of the row."""
        return len(self.tokens_T)


def pack(documents: Sequence[Document]) -> MicroBatch:
    """Lay documents side by side, without padding."""
    tokens, positions, asked, targets, weights = array("l"), array("l"), array("l"), array("l"), array("f")
    before: array[float] = array("f")
    reference: list[float] = []
    for document in documents:
        start = len(tokens)
        tokens.extend(document.tokens)
        positions.extend(document.positions())
        asked.extend(start + i - 1 for i in document.trained)
        targets.extend(document.tokens[i] for i in document.trained)
        weights.extend(document.weights)
        before.extend(document.before or ())
        reference.extend(document.reference or ())
    longs = [torch.tensor(values, dtype=torch.long) for values in (tokens, positions, asked, targets)]
    return MicroBatch(
        tokens_T=longs[0],
        positions_T=longs[1],
        lengths=tuple(piece for document in documents for piece in document.pieces),
        asked_N=longs[2],
        targets_N=longs[3],
        weights_N=torch.tensor(weights, dtype=torch.float32),
        n_trained=tuple(n for document in documents for n in document.n_trained),
        before_N=torch.tensor(before, dtype=torch.float32) if before else None,
        reference_B=torch.tensor(reference, dtype=torch.float32) if reference else None,
    )


def micro_batches(
    documents: Iterable[Document], *, token_budget: int, tree_budget: int | None = None
) -> Iterator[MicroBatch]:
    """Split a step's documents into rows of at most `token_budget` tokens, in their order but for those that begin alike.

    Those may fill a row of `tree_budget` tokens, since their stem is computed once a row. A document that is longer than the
    budget gets a row of its own. Documents without a trained token are left out: they cannot change the gradient.
    """
    held: list[Document] = []
    n_held = 0
    for alike, n_stem in _alike([document for document in documents if document.trained]):
        branches: list[Document] = []
        for document in alike:
            shares = n_stem or len(document.lengths) > 1
            budget = tree_budget if shares and tree_budget is not None else token_budget
            shared = n_stem if branches else 0
            if (held or branches) and n_held + len(document) - shared > budget:
                yield pack([*held, *_together(branches, n_stem)])
                held, branches, n_held, shared = [], [], 0, 0
            branches.append(document)
            n_held += len(document) - shared
        held += _together(branches, n_stem)
    if held:
        yield pack(held)


def _together(documents: list[Document], n_stem: int) -> list[Document]:
    return [tree(documents, n_stem)] if n_stem and len(documents) > 1 else documents


def _alike(documents: list[Document]) -> list[tuple[list[Document], int]]:
    """Return the documents in groups, each with the number of tokens with which all of the group begin (0: no tree)."""
    groups: dict[object, list[Document]] = {}
    for number, document in enumerate(documents):
        short = len(document.lengths) > 1 or document.trained[0] <= N_LEAST_STEM
        groups.setdefault(number if short else document.tokens[:N_LEAST_STEM].tobytes(), []).append(document)
    found = [(group, _stem(group)) for group in groups.values()]
    if not any(n_stem for _, n_stem in found):
        return [(documents, 0)]
    return found


def _stem(group: list[Document]) -> int:
    if len(group) < 2:
        return 0
    n_stem = n_common(group)
    saved = n_stem * (len(group) - 1)
    return n_stem if saved >= _WORTHWHILE * sum(map(len, group)) else 0


@dataclass(frozen=True, slots=True)
class Joined:
    """Micro-batches of several jobs in one row, and which trained tokens are whose."""

    packed: Packed
    #: Number of trained tokens of each micro-batch, in order.
    n_trained: tuple[int, ...]


def join(parts: Sequence[tuple[int | None, MicroBatch]]) -> Joined:
    """Lay micro-batches of several jobs side by side; each comes with the slot of its adapter, None for the bare base."""
    spans: list[Span] = []
    asked: list[Tensor] = []
    start = 0
    for slot, micro in parts:
        if slot is not None:
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
