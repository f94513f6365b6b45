"""Muon in float32, for hidden matrices: momentum whose every update is made orthogonal; torch's own insists on bfloat16."""

from collections.abc import Callable, Iterable

import torch

COEFFICIENTS = (3.4445, -4.775, 2.0315)
N_ITERATIONS = 5


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Push all singular values of a matrix towards one by five Newton-Schulz steps."""
    a, b, c = COEFFICIENTS
    wide = matrix.size(0) <= matrix.size(1)
    x = matrix if wide else matrix.T
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(N_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.T


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonal updates scaled to the size of AdamW's, decoupled weight decay."""

    def __init__(
        self, weights: Iterable[torch.Tensor], lr: float, *, momentum: float = 0.95, weight_decay: float = 0.05
    ) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Update every matrix from its gradient."""
        if closure is not None:
            raise NotImplementedError("Muon takes no closure")
        for group in self.param_groups:
            for weight in group["params"]:
                self._update(weight, group)

    def _update(self, weight: torch.Tensor, group: dict[str, float]) -> None:
        state = self.state[weight]
        momentum = state.setdefault("momentum", torch.zeros_like(weight))
        momentum.lerp_(weight.grad, 1 - group["momentum"])
        update = orthogonal(weight.grad.lerp(momentum, group["momentum"]))
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(update, alpha=-group["lr"] * 0.2 * max(weight.shape) ** 0.5)
