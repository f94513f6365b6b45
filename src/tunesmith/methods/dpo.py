# pyright: basic
"""Direct preference optimisation: the preferred answer is to gain on the other one, measured from the starting weights.

The loss of a pair is the sigmoid loss of Rafailov et al. 2023 (arXiv 2305.18290), `-log sigmoid(margin)` with
`margin = beta * ((log p - log p_start)(preferred) - (log p - log p_start)(non-preferred))` over whole answers, plus
`NLL_WEIGHT` times the mean `-log p` of the preferred answer's tokens (the RPO term of Pang et al. 2024, arXiv 2404.19733):
without it a small base learns to make the other answer unlikely at the cost of the preferred one, and forgets what it knew.
"""

from typing import TYPE_CHECKING, ClassVar, Final

from tunesmith.methods.base import LossSum, Scored

if TYPE_CHECKING:
    from torch import Tensor

#: Weight of the preferred answer's own loss.
NLL_WEIGHT: Final = 0.2


class Dpo:
    """The method `dpo`."""

    name: ClassVar[str] = "dpo"
    learning_rate: ClassVar[float] = 0.3
    needs_reference: ClassVar[bool] = True

    def __init__(self, *, beta: float = 0.1, nll_weight: float = NLL_WEIGHT) -> None:
        self._beta = beta
        self._nll_weight = nll_weight

    def loss(self, scored: Scored) -> LossSum:
        """Return the sum over pairs and their number; branches alternate, preferred first.

        Figures: `reward_margin`, `reward_accuracy` (how often the margin is above nought), `nll_loss`.
        """
        import torch
        import torch.nn.functional as F

        assert scored.reference_B is not None
        sums_B: Tensor = torch.stack([branch.sum() for branch in scored.logp_N.split(list(scored.n_trained))])
        gains_B = sums_B - scored.reference_B
        margins_P = self._beta * (gains_B[0::2] - gains_B[1::2])
        lengths_P = torch.tensor(scored.n_trained[0::2], device=sums_B.device)
        nll_P = -sums_B[0::2] / lengths_P
        total = (-F.logsigmoid(margins_P) + self._nll_weight * nll_P).sum()
        n_pairs = float(len(margins_P))
        with torch.no_grad():
            figures = {
                "reward_margin": (margins_P.sum(), n_pairs),
                "reward_accuracy": ((margins_P > 0).float().sum(), n_pairs),
                "nll_loss": (nll_P.sum(), n_pairs),
            }
        return LossSum(total, n_pairs, figures)
