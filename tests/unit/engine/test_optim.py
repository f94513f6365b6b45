import itertools

import pytest
import torch
from torch import nn

from tunesmith.engine.optim import CLIP_NORM, Optimizer, base_learning_rate, n_warmup, rate_at


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


def test_the_rate_rises_then_falls_to_zero_after_the_last_step() -> None:
    rates = [rate_at(step, 200, 1.0) for step in range(1, 202)]
    assert n_warmup(200) == 10
    assert rates[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert rates[9] == max(rates)
    assert all(one > other for one, other in itertools.pairwise(rates[9:]))
    assert rates[199] == pytest.approx(1 / 191)
    assert rates[200] == 0


@pytest.mark.parametrize(("total", "rise"), [(1, 1), (10, 1), (40, 2), (1000, 50), (100_000, 50)])
def test_the_rise_is_a_share_of_the_steps_within_bounds(total: int, rise: int) -> None:
    assert n_warmup(total) == rise
    assert rate_at(1, 1, 3.0) == 3.0


def test_the_base_rate_falls_with_the_width() -> None:
    assert base_learning_rate(4096) == pytest.approx(3e-4)
    assert base_learning_rate(512) == pytest.approx(1.2e-3)
    assert base_learning_rate(1) == 4e-3
    assert base_learning_rate(10**9) == 1e-4


def test_an_update_is_adamw_on_the_divided_and_clipped_gradient() -> None:
    ours, theirs = parameter(1.0, -2.0), parameter(1.0, -2.0)
    optimizer = Optimizer([ours], total_steps=3, peak=0.1)
    reference = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.0)
    for step, grad in ((1, (30.0, 40.0)), (2, (0.3, 0.4)), (3, (-6.0, 8.0))):
        ours.grad = torch.tensor(grad)
        applied = optimizer.update(10.0)
        mean = torch.tensor(grad) / 10
        assert applied.grad_norm == pytest.approx(float(mean.norm()))
        assert applied.learning_rate == pytest.approx(rate_at(step, 3, 0.1))
        theirs.grad = mean * min(1.0, CLIP_NORM / float(mean.norm()))
        reference.param_groups[0]["lr"] = rate_at(step, 3, 0.1)
        reference.step()
        torch.testing.assert_close(ours, theirs)
        assert ours.grad is None


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    weight = parameter(1.0, 2.0)
    optimizer = Optimizer([weight], total_steps=3, peak=0.1)
    weight.grad = torch.tensor([float("nan"), 1.0])
    with pytest.raises(FloatingPointError, match="step 1"):
        optimizer.update(1.0)
    assert weight.tolist() == [1.0, 2.0]


def test_a_restored_optimizer_goes_on_with_the_same_bits() -> None:
    def advance(optimizer: Optimizer, weight: nn.Parameter, steps: range) -> None:
        for step in steps:
            weight.grad = torch.tensor([0.1 * step, -0.2])
            optimizer.update(1.0)

    whole = parameter(1.0, 2.0)
    straight = Optimizer([whole], total_steps=6, peak=0.1)
    advance(straight, whole, range(6))

    half = parameter(1.0, 2.0)
    first = Optimizer([half], total_steps=6, peak=0.1)
    assert first.tensors() == {}
    advance(first, half, range(3))
    saved = {name: tensor.clone() for name, tensor in first.tensors().items()}
    resumed_weight = nn.Parameter(half.detach().clone())
    second = Optimizer([resumed_weight], total_steps=6, peak=0.1)
    second.restore(saved, n_updates=3)
    advance(second, resumed_weight, range(3, 6))
    assert torch.equal(whole, resumed_weight)


def test_a_state_of_other_parameters_is_refused() -> None:
    optimizer = Optimizer([parameter(1.0)], total_steps=2, peak=0.1)
    optimizer.restore({}, n_updates=0)
    with pytest.raises(ValueError, match="parameter 0"):
        optimizer.restore({"0.exp_avg": torch.zeros(2), "0.exp_avg_sq": torch.zeros(2)}, n_updates=1)


def test_a_skipped_step_counts_for_the_schedule() -> None:
    weight = parameter(1.0)
    optimizer = Optimizer([weight], total_steps=4, peak=0.1)
    optimizer.skip()
    assert optimizer.n_updates == 1
    assert weight.tolist() == [1.0]
