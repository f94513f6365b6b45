from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tunesmith.engine.batch import micro_batches, pack
from tunesmith.engine.document import Document
from tunesmith.engine.optim import Optimizer
from tunesmith.engine.step import Tally, Tuning, evaluate, forward_backward
from tunesmith.lm.load import Base
from tunesmith.lm.lora import LoraModel
from tunesmith.methods.supervised import Supervised

MakeBase = Callable[..., Base]


def tuning(lora: LoraModel, slot: int, seed: int) -> Tuning:
    adapter = lora.fresh(seed=seed)
    with torch.no_grad():
        for pair in adapter.pairs.values():
            pair.b_OR.normal_(0, 0.05, generator=torch.Generator().manual_seed(seed))
    adapter.sync()
    lora.place(slot, adapter)
    return Tuning(slot, Supervised(), adapter, Optimizer(adapter.parameters(), total_steps=5, peak=1e-2))


def grads(one: Tuning) -> list[torch.Tensor]:
    return [parameter.grad for parameter in one.adapter.parameters() if parameter.grad is not None]


def assert_near(ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float = 1e-6) -> None:
    assert len(ours) == len(theirs) > 0
    off = sum(float((one - other).square().sum()) for one, other in zip(ours, theirs, strict=True))
    assert off**0.5 <= tolerance * sum(float(other.square().sum()) for other in theirs) ** 0.5


def test_packed_together_or_one_by_one_the_gradients_are_the_same(
    make_base: MakeBase, documents: list[list[Document]]
) -> None:
    flat = [document for row in documents for document in row]
    base = make_base()
    lora = LoraModel(base.model)
    packed, single = tuning(lora, 0, 1), tuning(lora, 1, 1)
    forward_backward(base, lora, [(packed, pack(flat))])
    for document in flat:
        forward_backward(base, lora, [(single, pack([document]))])
    assert_near(grads(packed), grads(single))
    assert packed.tally.count == single.tally.count
    assert packed.tally.means("")["loss"] == pytest.approx(single.tally.means("")["loss"], rel=1e-6)
    assert packed.tally.means("")["mean_token_accuracy"] == single.tally.means("")["mean_token_accuracy"]


def test_a_list_of_jobs_gives_each_what_it_gets_alone(make_base: MakeBase, documents: list[list[Document]]) -> None:
    base = make_base()
    lora = LoraModel(base.model)
    jobs = [tuning(lora, slot, seed=slot) for slot in range(3)]
    alone = [tuning(lora, slot + 3, seed=slot) for slot in range(3)]
    micros = [pack(documents[i]) for i in (1, 2, 5)]
    for step in range(2):
        forward_backward(base, lora, list(zip(jobs, micros, strict=True)))
        for job, micro in zip(alone, micros, strict=True):
            forward_backward(base, lora, [(job, micro)])
        for together, apart in zip(jobs, alone, strict=True):
            assert_near(grads(together), grads(apart))
            figures, theirs = together.update(), apart.update()
            assert figures == pytest.approx(theirs, rel=1e-5), step


def test_the_loss_is_divided_once_over_all_micro_batches(make_base: MakeBase, document: Callable[..., Document]) -> None:
    """Unequal micro-batches: a mean of their means would be another number."""
    flat = [document(30, range(1, 30), 1), document(30, range(28, 30), 2)]
    base = make_base()
    lora = LoraModel(base.model)
    job = tuning(lora, 0, 1)
    sums: list[float] = []
    for micro in micro_batches(flat, token_budget=30):
        forward_backward(base, lora, [(job, micro)])
        sums.append(job.tally.total)
    assert job.tally.count == 31
    assert job.update()["train_loss"] == pytest.approx(sums[-1] / 31)
    assert job.tally == Tally()


def test_tokens_of_weight_zero_do_not_train(make_base: MakeBase, document: Callable[..., Document]) -> None:
    base = make_base()
    lora = LoraModel(base.model)
    whole, cut = tuning(lora, 0, 1), tuning(lora, 1, 1)
    forward_backward(base, lora, [(whole, pack([document(12, range(4, 7), 1)]))])
    shorter = document(12, range(4, 7), 1)
    ahead = replace(shorter, tokens=shorter.tokens[:7], lengths=(7,))
    forward_backward(base, lora, [(cut, pack([ahead]))])
    assert_near(grads(whole), grads(cut))


def test_half_a_weight_counts_half(make_base: MakeBase, document: Callable[..., Document]) -> None:
    base = make_base()
    lora = LoraModel(base.model)
    full, mixed = document(8, range(2, 8), 1), document(8, range(2, 8), 1)
    mixed.weights[0] = 0.5
    tally, mixed_tally = Tally(), Tally()
    job = tuning(lora, 0, 1)
    evaluate(base, lora, job, [pack([full])], tally)
    evaluate(base, lora, job, [pack([mixed])], mixed_tally)
    assert (tally.count, mixed_tally.count) == (6, 5.5)
    assert mixed_tally.total < tally.total
    assert not grads(job)


def test_a_step_without_trained_tokens_changes_nothing(make_base: MakeBase) -> None:
    lora = LoraModel(make_base().model)
    job = tuning(lora, 0, 1)
    before = [parameter.detach().clone() for parameter in job.adapter.parameters()]
    assert job.update() == {}
    assert job.optimizer.n_updates == 1
    assert all(torch.equal(one, other) for one, other in zip(before, job.adapter.parameters(), strict=True))
