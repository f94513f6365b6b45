# pyright: basic
"""From packed tokens to log-probabilities at the asked positions, through base, adapters and head.

Shapes: T tokens of the row, N asked positions, C hidden size.
"""

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from tunesmith.lm.attention import Layout, Piece
from tunesmith.lm.head import token_logp
from tunesmith.lm.load import Base
from tunesmith.lm.lora import LoraModel, Span

#: A CPU makes a program for each size of a product in bf16, which takes time and stays in memory: so many tokens apart.
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


def filled(packed: Packed) -> Packed:
    """Return the row with a document at its end that nobody asks of, so that its length is a multiple of `STRIDE`."""
    n_more = -len(packed.tokens_T) % STRIDE
    if not n_more:
        return packed
    tokens_T = torch.cat([packed.tokens_T, packed.tokens_T.new_zeros(n_more)])
    positions_T = torch.cat([packed.positions_T, torch.arange(n_more)])
    return replace(packed, tokens_T=tokens_T, positions_T=positions_T, lengths=(*packed.lengths, n_more))


def score(base: Base, lora: LoraModel, packed: Packed) -> Scores:
    """Score a packed row; one forward pass for all documents and all adapters in it."""
    device, route = base.device, lora.route
    if device.type == "cpu" and base.dtype == torch.bfloat16:
        packed = filled(packed)
    asked_N = packed.asked_N.to(device)
    route.spans, route.asked_N = packed.spans, asked_N
    try:
        hidden_TC = base.hidden(packed.tokens_T.to(device), packed.positions_T.to(device), Layout(packed.lengths))
    finally:
        route.spans, route.asked_N = (), None
    asked_NC = hidden_TC.index_select(0, asked_N)
    logp_N, correct_N = token_logp(asked_NC, base.head, packed.targets_N.to(device))
    return Scores(logp_N, correct_N)
