# pyright: basic
"""From logits to tokens: temperature, nucleus, a generator of each row's own, and the model's own log-probability.

Shapes: S rows, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one row chooses its tokens; its randomness depends on nothing but its seed and its own steps."""

    temperature: float = 1.0
    top_p: float = 1.0
    generator: torch.Generator = field(default_factory=torch.Generator)


def generator(seed: int, index: int) -> torch.Generator:
    """Return the generator of sample `index` of a request with a seed."""
    return torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)


def choose(logits_SV: Tensor, samplings: Sequence[Sampling]) -> tuple[list[int], list[float]]:
    """Return each row's token and its log-probability at temperature 1."""
    logp_SV = torch.log_softmax(logits_SV.float(), -1)
    tokens_S = logp_SV.argmax(-1)
    for row, sampling in enumerate(samplings):
        if sampling.temperature > 0:
            tokens_S[row] = _draw(logp_SV[row], sampling)
    chosen_S = logp_SV.gather(1, tokens_S[:, None])[:, 0]
    return tokens_S.tolist(), chosen_S.tolist()


def _draw(logp_V: Tensor, sampling: Sampling) -> Tensor:
    """Draw by inverting the cumulative distribution at one uniform number of the row's generator."""
    p_V, order_V = torch.softmax(logp_V.cpu() / sampling.temperature, -1).double().sort(descending=True)
    cumulative_V = p_V.cumsum(0)
    if sampling.top_p < 1:
        kept = int((cumulative_V - p_V < sampling.top_p).sum().clamp(min=1))
        cumulative_V = cumulative_V[:kept]
    u = torch.rand((), generator=sampling.generator, dtype=torch.float64) * cumulative_V[-1]
    place = torch.searchsorted(cumulative_V, u, right=True).clamp(max=cumulative_V.shape[0] - 1)
    return order_V[place]
