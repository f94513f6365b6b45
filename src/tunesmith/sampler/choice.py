# pyright: basic
"""From logits to tokens: temperature, nucleus, a generator of each row's own; log-probabilities are the model's own.

Shapes: S rows, R rows that draw, V vocabulary.
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


def choose(
    logits_SV: Tensor, samplings: Sequence[Sampling], allowed_SV: Tensor | None = None
) -> tuple[list[int], list[float]]:
    """Return each row's token, among those that it may take, and its log-probability at temperature 1 among all."""
    own_SV = torch.log_softmax(logits_SV.float(), -1)
    logp_SV = own_SV if allowed_SV is None else own_SV.masked_fill(~allowed_SV, -torch.inf)
    tokens_S = logp_SV.argmax(-1)
    for nucleus in (False, True):
        rows = [i for i, each in enumerate(samplings) if each.temperature > 0 and (each.top_p < 1) == nucleus]
        if rows:
            rows_R = torch.tensor(rows, device=tokens_S.device)
            tokens_S[rows_R] = _draw(logp_SV[rows_R], [samplings[row] for row in rows], nucleus=nucleus)
    chosen_S = own_SV.gather(1, tokens_S[:, None])[:, 0]
    return tokens_S.tolist(), chosen_S.tolist()


def _draw(logp_RV: Tensor, samplings: list[Sampling], *, nucleus: bool) -> Tensor:
    """Draw by inverting the cumulative distribution at one uniform number of each row's generator.

    The distribution is accumulated in double precision: in single precision the tail of a large vocabulary gets lost.
    """
    device = logp_RV.device
    # Temperatures next to nothing would overflow; at this one the best token has all the weight already.
    warmth_R1 = torch.tensor([[max(each.temperature, 1e-4)] for each in samplings], device=device)
    p_RV = torch.softmax(logp_RV / warmth_R1, -1).double()
    order_RV = None
    if nucleus:
        p_RV, order_RV = torch.sort(p_RV, dim=-1, descending=True, stable=True)
        top_R1 = torch.tensor([[each.top_p] for each in samplings], device=device, dtype=torch.float64)
        outside_RV = p_RV.cumsum(-1) - p_RV >= top_R1
        outside_RV[:, 0] = False
        p_RV = p_RV.masked_fill(outside_RV, 0.0)
    cumulative_RV = p_RV.cumsum(-1)
    u_R1 = torch.stack([torch.rand(1, generator=each.generator, dtype=torch.float64) for each in samplings]).to(device)
    # Strictly above u, so that a token without weight is never drawn.
    place_R1 = torch.searchsorted(cumulative_RV, u_R1 * cumulative_RV[:, -1:], right=True)
    place_R1 = torch.minimum(place_R1, (p_RV > 0).long().mul_(torch.arange(p_RV.shape[1], device=device)).amax(-1, True))
    return (place_R1 if order_RV is None else order_RV.gather(1, place_R1))[:, 0]
