"""A row that is filled up to a round length says the same of the tokens that are asked for."""

from collections.abc import Callable
from typing import Any

import torch

from tunesmith.lm.load import wrap
from tunesmith.lm.lora import LoraModel, Span
from tunesmith.lm.score import STRIDE, Packed, filled, score


def row() -> Packed:
    tokens = torch.arange(3, 14)
    positions = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4])
    return Packed(tokens, positions, ((3, 2, 1), 5), (Span(0, 0, 11),), torch.tensor([3, 7, 9]), tokens[[4, 8, 10]])


def test_the_filling_is_a_document_of_its_own_that_nobody_asks_of() -> None:
    full = filled(row())
    assert len(full.tokens_T) == len(full.positions_T) == STRIDE
    assert full.lengths == ((3, 2, 1), 5, STRIDE - 11)
    assert full.positions_T[11:].tolist() == list(range(STRIDE - 11))
    assert (full.spans, full.asked_N.tolist()) == (row().spans, [3, 7, 9])
    assert filled(full) is full


def test_what_is_asked_and_its_gradients_stay(make_model: Callable[..., Any]) -> None:
    def scored(packed: Packed) -> tuple[torch.Tensor, torch.Tensor]:
        base = wrap(make_model("qwen3"))
        lora = LoraModel(base.model)
        adapter = lora.fresh(seed=1)
        lora.place(0, adapter)
        logp = score(base, lora, packed).logp_N
        logp.sum().backward()
        return logp.detach(), torch.cat([p.grad.reshape(-1) for p in adapter.parameters() if p.grad is not None])

    (logp, slope), (full_logp, full_slope) = scored(row()), scored(filled(row()))
    assert torch.allclose(logp, full_logp, atol=1e-5)
    assert float((slope - full_slope).norm()) <= 1e-5 * float(slope.norm())
