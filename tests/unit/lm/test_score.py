"""A row of round sizes says the same of the tokens that are asked for."""

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


def test_the_filling_is_a_document_of_its_own() -> None:
    full = filled(row())
    packed = full.packed
    assert len(packed.tokens_T) == len(packed.positions_T) == len(packed.asked_N) == STRIDE
    assert packed.lengths == ((3, 2, 1), 5, STRIDE - 11)
    assert packed.positions_T[11:].tolist() == list(range(STRIDE - 11))
    assert packed.spans == (Span(0, 0, STRIDE),)
    assert packed.asked_N[full.places_N].tolist() == [3, 7, 9]
    assert packed.targets_N[full.places_N].tolist() == row().targets_N.tolist()
    assert filled(packed).packed.tokens_T.equal(packed.tokens_T)


def test_each_adapters_tokens_are_filled_up_by_themselves() -> None:
    whole = row()
    two = Packed(whole.tokens_T, whole.positions_T, whole.lengths, (Span(4, 0, 6),), whole.asked_N, whole.targets_N)
    full = filled(two)
    assert full.packed.spans == (Span(4, 0, STRIDE),)
    assert full.packed.lengths == ((3, 2, 1), STRIDE - 6, 5, STRIDE - 5)
    assert full.packed.asked_N[full.places_N].tolist() == [3, STRIDE + 1, STRIDE + 3]
    assert len(full.packed.asked_N) == 2 * STRIDE
    assert full.packed.asked_N.equal(full.packed.asked_N.sort().values)


def test_what_is_asked_and_its_gradients_stay(make_model: Callable[..., Any]) -> None:
    def scored(*, fill: bool) -> tuple[torch.Tensor, torch.Tensor]:
        base = wrap(make_model("qwen3"))
        lora = LoraModel(base.model)
        adapter = lora.fresh(seed=1)
        lora.place(0, adapter)
        full = filled(row())
        logp = score(base, lora, full.packed).logp_N[full.places_N] if fill else score(base, lora, row()).logp_N
        logp.sum().backward()
        return logp.detach(), torch.cat([p.grad.reshape(-1) for p in adapter.parameters() if p.grad is not None])

    (logp, slope), (full_logp, full_slope) = scored(fill=False), scored(fill=True)
    assert torch.allclose(logp, full_logp, atol=1e-5)
    assert float((slope - full_slope).norm()) <= 1e-5 * float(slope.norm())
