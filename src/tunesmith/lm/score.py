# pyright: basic
"""From packed tokens to log-probabilities at the asked positions, through base, adapters and head.

Shapes: T tokens of the row, N asked positions, C hidden size.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

from tunesmith.lm.attention import Layout, Piece
from tunesmith.lm.forward import own_forward
from tunesmith.lm.head import token_logp
from tunesmith.lm.load import Base
from tunesmith.lm.lora import LoraModel, Span

#: A CPU makes a program for each size of a product in bf16: that takes milliseconds, and half a megabyte which it keeps.
STRIDE: Final = 64


@dataclass(frozen=True, slots=True)
class Packed:
    """Documents side by side in one row, and where their tokens are to be predicted."""

    tokens_T: Tensor
    #: Position of each token in its document, from 0; a branch goes on from its stem.
    positions_T: Tensor
    #: Lengths of the documents, in order; they sum to T.
    lengths: tuple[Piece, ...]
    #: Which adapter leads which tokens; empty is the bare base.
    spans: tuple[Span, ...]
    #: Ascending indices into T of the tokens *after which* a prediction is asked.
    asked_N: Tensor
    #: The tokens that are to be predicted there.
    targets_N: Tensor


@dataclass(frozen=True, slots=True)
class Scores:
    """What the model says about the asked tokens."""

    #: Log-probability in fp32; differentiable with respect to the adapters.
    logp_N: Tensor
    #: Whether the token was the most likely one.
    correct_N: Tensor


@dataclass(frozen=True, slots=True)
class Filled:
    """A row of round sizes, and where among its asked positions those of the row lie that it was made of."""

    packed: Packed
    places_N: Tensor


def filled(packed: Packed) -> Filled:
    """Return the row with round numbers of tokens and of asked positions, each adapter's own: multiples of `STRIDE`.

    A document that nobody asks of is laid after what belongs to each adapter, and as many further positions are asked as it
    takes; what is said there is not looked at, so that gradients stay the same.
    """
    edges = sorted({0, len(packed.tokens_T), *(edge for span in packed.spans for edge in (span.start, span.stop))})
    pieces = iter(packed.lengths)
    tokens, positions, asked, targets, places = (
        list[Tensor](),
        list[Tensor](),
        list[Tensor](),
        list[Tensor](),
        list[Tensor](),
    )
    lengths: list[Piece] = []
    moved = {0: 0}
    n_asked = 0
    for start, stop in pairwise(edges):
        n_tokens, n_more = stop - start, -(stop - start) % STRIDE
        tokens += [packed.tokens_T[start:stop], packed.tokens_T.new_zeros(n_more)]
        positions += [packed.positions_T[start:stop], torch.arange(n_more)]
        while n_tokens:
            lengths.append(piece := next(pieces))
            n_tokens -= piece if isinstance(piece, int) else sum(piece)
        lengths += [n_more] if n_more else []
        moved[stop] = moved[start] + stop - start + n_more
        first, last = torch.searchsorted(packed.asked_N, torch.tensor([start, stop])).tolist()
        own_N = packed.asked_N[first:last] - start
        chosen = torch.zeros(stop - start + n_more, dtype=torch.bool)
        chosen[own_N] = True
        spare = (~chosen).nonzero()[:, 0]
        chosen[spare[len(spare) - -len(own_N) % STRIDE :]] = True
        asked_M = chosen.nonzero()[:, 0]
        places_N = torch.searchsorted(asked_M, own_N)
        asked.append(asked_M + moved[start])
        targets.append(packed.targets_N.new_zeros(len(asked_M)).index_copy(0, places_N, packed.targets_N[first:last]))
        places.append(places_N + n_asked)
        n_asked += len(asked_M)
    spans = tuple(replace(span, start=moved[span.start], stop=moved[span.stop]) for span in packed.spans)
    round_row = Packed(
        torch.cat(tokens), torch.cat(positions), tuple(lengths), spans, torch.cat(asked), torch.cat(targets)
    )  # fmt: skip
    return Filled(round_row, torch.cat(places))


def score(base: Base, lora: LoraModel, packed: Packed) -> Scores:
    """Score a packed row; one forward pass for all documents and all adapters in it."""
    if base.device.type == "cpu" and base.dtype == torch.bfloat16:
        round_row = filled(packed)
        scores, places_N = _score(base, lora, round_row.packed), round_row.places_N
        return Scores(scores.logp_N.index_select(0, places_N), scores.correct_N.index_select(0, places_N))
    return _score(base, lora, packed)


def _score(base: Base, lora: LoraModel, packed: Packed) -> Scores:
    device, route = base.device, lora.route
    asked_N = packed.asked_N.to(device)
    own = own_forward(base, lora)
    if own is not None and own.takes(packed.lengths):
        asked_NC = own(packed.tokens_T, packed.positions_T, packed.lengths, packed.spans, asked_N)
        return Scores(*token_logp(asked_NC, base.head, packed.targets_N))
    route.spans, route.asked_N = packed.spans, asked_N
    try:
        hidden_TC = base.hidden(packed.tokens_T.to(device), packed.positions_T.to(device), Layout(packed.lengths))
    finally:
        route.spans, route.asked_N = (), None
    asked_NC = hidden_TC.index_select(0, asked_N)
    logp_N, correct_N = token_logp(asked_NC, base.head, packed.targets_N.to(device))
    return Scores(logp_N, correct_N)
