# pyright: basic
"""From logits to tokens: biases, penalties, temperature, nucleus, a generator of each row's own.

Shapes: S rows, R rows of a kind, V vocabulary, K tokens that some row leans to or away from.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

#: Tokens whose weights are summed before they are looked at one by one.
_N_BLOCK: Final = 64
_N_MANY: Final = 16384

Top = tuple[tuple[int, float], ...]


class Leaning:
    """What is added to a few of a row's logits: its biases, and less the more often the row has sampled a token."""

    __slots__ = ("_frequency", "_places", "_presence", "_sampled", "plus", "tokens")

    def __init__(self, bias: Mapping[int, float], *, presence: float = 0.0, frequency: float = 0.0) -> None:
        self.tokens = array("q", bias)
        self.plus = array("d", bias.values())
        self._presence, self._frequency = presence, frequency
        self._places = {token: place for place, token in enumerate(bias)}
        self._sampled: set[int] = set()

    def take(self, token: int) -> None:
        """Count a token that the row has sampled."""
        if not self._presence and not self._frequency:
            return
        place = self._places.setdefault(token, len(self.tokens))
        if place == len(self.tokens):
            self.tokens.append(token)
            self.plus.append(0.0)
        self.plus[place] -= self._frequency + (0.0 if token in self._sampled else self._presence)
        self._sampled.add(token)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one row chooses its tokens; its randomness depends on nothing but its seed and its own steps."""

    temperature: float = 1.0
    top_p: float = 1.0
    generator: torch.Generator = field(default_factory=torch.Generator)
    leaning: Leaning | None = None
    n_top: int = 0


def generator(seed: int, index: int) -> torch.Generator:
    """Return the generator of sample `index` of a request with a seed."""
    return torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)


def choose(
    logits_SV: Tensor, samplings: Sequence[Sampling], allowed_SV: Tensor | None = None
) -> tuple[list[int], list[float], list[Top]]:
    """Return each row's token, among those that it may take, its log-probability, and the likeliest where it asks for them.

    Log-probabilities are the model's own: at temperature 1, among all tokens, without leanings.
    """
    own_SV = torch.log_softmax(logits_SV.float(), -1)
    tops = likeliest(own_SV, [each.n_top for each in samplings])
    logp_SV = own_SV if allowed_SV is None else own_SV.masked_fill(~allowed_SV, -torch.inf)
    before = _lean(logp_SV, samplings)
    tokens_S = logp_SV.max(-1).indices  # as argmax says, in a third of its time
    for nucleus in (False, True):
        rows = [i for i, each in enumerate(samplings) if each.temperature > 0 and (each.top_p < 1) == nucleus]
        if rows:
            rows_R = slice(None) if len(rows) == len(samplings) else torch.tensor(rows, device=tokens_S.device)
            tokens_S[rows_R] = _draw(logp_SV[rows_R], [samplings[row] for row in rows], nucleus=nucleus)
    if before is not None:
        rows_K, tokens_K, logp_K = before
        logp_SV[rows_K, tokens_K] = logp_K
    chosen_S = own_SV.gather(1, tokens_S[:, None])[:, 0]
    tokens = tokens_S.tolist()
    for each, token in zip(samplings, tokens, strict=True):
        if each.leaning is not None:
            each.leaning.take(token)
    return tokens, chosen_S.tolist(), tops


def likeliest(logp_SV: Tensor, n_tops: Sequence[int]) -> list[Top]:
    """Return the likeliest tokens of each row, as many as it asks for, the best first."""
    tops: list[Top] = [()] * len(n_tops)
    rows = [row for row, n in enumerate(n_tops) if n]
    if rows:
        asked_RV = logp_SV if len(rows) == len(n_tops) else logp_SV[torch.tensor(rows, device=logp_SV.device)]
        best = asked_RV.topk(min(max(n_tops), logp_SV.shape[1]), -1)
        for row, logprobs, tokens in zip(rows, best.values.tolist(), best.indices.tolist(), strict=True):
            tops[row] = tuple(zip(tokens, logprobs, strict=True))[: n_tops[row]]
    return tops


def _lean(logp_SV: Tensor, samplings: Sequence[Sampling]) -> tuple[Tensor, Tensor, Tensor] | None:
    """Add, in place, what rows lean to; return where, and what stood there, or None where no row leans.

    Only finite numbers are added: a token that a grammar rules out stays out, and one that is all it leaves can be taken.
    """
    rows, tokens, plus = array("q"), array("q"), array("d")
    for row, each in enumerate(samplings):
        if each.leaning is not None:
            rows.extend([row] * len(each.leaning.tokens))
            tokens.extend(each.leaning.tokens)
            plus.extend(each.leaning.plus)
    if not rows:
        return None
    rows_K, tokens_K, plus_K = (torch.tensor(values, device=logp_SV.device) for values in (rows, tokens, plus))
    logp_K = logp_SV[rows_K, tokens_K]
    logp_SV[rows_K, tokens_K] = logp_K + plus_K.to(logp_K.dtype)
    return rows_K, tokens_K, logp_K


def _draw(logp_RV: Tensor, samplings: list[Sampling], *, nucleus: bool) -> Tensor:
    """Draw by inverting the cumulative distribution at one uniform number of each row's generator.

    The distribution is accumulated in double precision: in single precision the tail of a large vocabulary gets lost.
    """
    device = logp_RV.device
    if any(each.temperature != 1 for each in samplings):
        # Temperatures next to nothing would overflow; at this one the best token has all the weight already.
        logp_RV = logp_RV / torch.tensor([[max(each.temperature, 1e-4)] for each in samplings], device=device)
    p_RV = torch.softmax(logp_RV, -1)
    u_R1 = torch.stack([torch.rand(1, generator=each.generator, dtype=torch.float64) for each in samplings]).to(device)
    if not nucleus:
        return (_inverted_by_blocks(p_RV, u_R1) if p_RV.numel() > _N_MANY else _inverted(p_RV.double(), u_R1))[:, 0]
    p_RV, order_RV = torch.sort(p_RV.double(), dim=-1, descending=True, stable=True)
    top_R1 = torch.tensor([[each.top_p] for each in samplings], device=device, dtype=torch.float64)
    outside_RV = p_RV.cumsum(-1) - p_RV >= top_R1
    outside_RV[:, 0] = False
    return order_RV.gather(1, _inverted(p_RV.masked_fill(outside_RV, 0.0), u_R1))[:, 0]


def _inverted_by_blocks(p_RV: Tensor, u_R1: Tensor) -> Tensor:
    """Return the same as `_inverted`; only the block that the number falls into is looked at token by token."""
    p_RV = F.pad(p_RV, (0, -p_RV.shape[1] % _N_BLOCK)) if p_RV.shape[1] % _N_BLOCK else p_RV
    p_RBN = p_RV.unflatten(1, (-1, _N_BLOCK))
    total_RB = p_RBN.sum(-1, dtype=torch.float64)
    block_R1 = _inverted(total_RB, u_R1)
    before_R1 = total_RB.cumsum(-1).gather(1, block_R1) - total_RB.gather(1, block_R1)
    p_RN = p_RBN.gather(1, block_R1[:, :, None].expand(-1, -1, _N_BLOCK))[:, 0].double()
    return block_R1 * _N_BLOCK + _inverted(p_RN, u_R1 * total_RB.sum(-1, True), before_R1)


def _inverted(p_RN: Tensor, u_R1: Tensor, before_R1: Tensor | None = None) -> Tensor:
    """Return where the cumulative distribution passes u; above u strictly, so that what has no weight is never drawn.

    With `before_R1`, the weight that lies before, `u_R1` is a weight too; without it, a share of the whole.
    """
    cumulative_RN = p_RN.cumsum(-1)
    sought_R1 = u_R1 * cumulative_RN[:, -1:] if before_R1 is None else u_R1 - before_R1
    place_R1 = torch.searchsorted(cumulative_RN, sought_R1, right=True)
    last_R1 = (p_RN > 0).long().mul_(torch.arange(p_RN.shape[1], device=p_RN.device)).amax(-1, True)
    return torch.minimum(place_R1, last_R1)
