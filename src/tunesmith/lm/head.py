# pyright: basic
"""The output head: log-probabilities of given tokens, computed only where they are asked for and a chunk at a time.

The gradient with respect to the hidden states is formed in the same pass, in the buffer that held the logits: they are never
kept, never computed twice, and cost `CHUNK_BYTES` whatever the vocabulary.

Shapes: N asked positions, C hidden size, V vocabulary, M rows of a chunk.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

#: Memory of one chunk's logits in fp32.
CHUNK_BYTES: Final = 32 * 1024 * 1024
_N_MIN_ROWS: Final = 16


@dataclass(frozen=True, slots=True)
class Head:
    """What stands between the last hidden state and the logits: `softcap(scale * (h W^T + b))`."""

    weight_VC: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden_MC: Tensor) -> Tensor:
        """Return the logits in fp32, as a fresh buffer."""
        return self.finished(torch.nn.functional.linear(hidden_MC, self.weight_VC, self.bias_V).float())

    def finished(self, raw_MV: Tensor) -> Tensor:
        """Return the logits of a product that was computed elsewhere, in its buffer."""
        if self.scale != 1.0:
            raw_MV.mul_(self.scale)
        if self.softcap is not None:
            raw_MV.div_(self.softcap).tanh_().mul_(self.softcap)
        return raw_MV


def n_rows(vocabulary: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Return how many positions fit one chunk."""
    return max(_N_MIN_ROWS, chunk_bytes // (4 * vocabulary))


def token_logp(hidden_NC: Tensor, head: Head, targets_N: Tensor, *, chunk_bytes: int = CHUNK_BYTES) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each target in fp32, and whether it was the most likely token.

    The log-probabilities are differentiable with respect to `hidden_NC` (the head itself is frozen).
    """
    return _TokenLogp.apply(hidden_NC, head, targets_N, n_rows(head.weight_VC.shape[0], chunk_bytes))  # type: ignore[return-value]  # autograd functions are untyped


class _TokenLogp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_NC: Tensor, head: Head, targets_N: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        n = hidden_NC.shape[0]
        logp_N = torch.empty(n, dtype=torch.float32, device=hidden_NC.device)
        correct_N = torch.empty(n, dtype=torch.bool, device=hidden_NC.device)
        slope_NC = torch.empty_like(hidden_NC) if ctx.needs_input_grad[0] else None
        for start in range(0, n, rows):
            part = slice(start, start + rows)
            hidden_MC, targets_M1 = hidden_NC[part], targets_N[part, None]
            logits_MV = head.logits(hidden_MC)
            bend_MV = None if head.softcap is None or slope_NC is None else 1 - (logits_MV / head.softcap).square_()
            top_M, best_M = logits_MV.max(-1)
            chosen_M = logits_MV.gather(1, targets_M1)[:, 0] - top_M
            total_M = logits_MV.sub_(top_M[:, None]).exp_().sum(-1)
            logp_N[part] = chosen_M - total_M.log()
            correct_N[part] = best_M == targets_M1[:, 0]
            if slope_NC is not None:
                logits_MV.div_(-total_M[:, None])
                logits_MV.scatter_add_(1, targets_M1, torch.ones_like(chosen_M)[:, None])
                if bend_MV is not None:
                    logits_MV.mul_(bend_MV)
                if head.scale != 1.0:
                    logits_MV.mul_(head.scale)
                slope_NC[part] = logits_MV.to(head.weight_VC.dtype) @ head.weight_VC
        ctx.save_for_backward(slope_NC)
        ctx.mark_non_differentiable(correct_N)
        return logp_N, correct_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor, _correct: Any) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride] - the arity is ours
        (slope_NC,) = ctx.saved_tensors
        return slope_NC * grad_N[:, None].to(slope_NC.dtype), None, None, None
