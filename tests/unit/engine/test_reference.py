"""Preferences through the one loop: the reference is the model that training began with, asked once and kept."""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tunesmith.blobs.local import LocalBlobs
from tunesmith.data.render import Example
from tunesmith.engine import checkpoints
from tunesmith.engine.document import Document
from tunesmith.engine.examples import Examples
from tunesmith.engine.loop import Outcome, train
from tunesmith.engine.run import Run
from tunesmith.lm.load import Base
from tunesmith.lm.lora import LoraModel
from tunesmith.methods.dpo import NLL_WEIGHT, Dpo

Rows = list[list[Document]]
MakeBase = Callable[..., Base]
N_EPOCHS = 3


@pytest.fixture
def dpo_plan(plan: Callable[..., Run]) -> Callable[..., Run]:
    """Return a function that makes a run over seven pairs: 2 steps of 4 pairs an epoch."""
    return lambda **changes: plan(**({"method": Dpo(beta=0.5), "n_epochs": N_EPOCHS, "token_budget": 60} | changes))


def pair(seed: int) -> list[Document]:
    """Return a row: two answers of different lengths to one prompt."""
    chance = random.Random(seed)
    prompt, *answers = [tuple(chance.randrange(3, 64) for _ in range(n + seed % 3)) for n in (6, 4, 7)]
    examples = [Example(prompt + answer, (0.0,) * len(prompt) + (1.0,) * len(answer), truncated=False) for answer in answers]
    return [Document.of(*examples)]


@pytest.fixture
def pairs() -> Rows:
    return [pair(seed) for seed in range(7)]


def go(run: Run, base: Base, source: Examples, blobs: LocalBlobs, told: Any) -> Outcome:
    return train(run, base, lora=LoraModel(base.model), source=source, blobs=blobs, reporter=told, control=told)


def known(blobs: LocalBlobs, key: str, run: Run) -> dict[str, torch.Tensor]:
    return checkpoints.read(blobs, key, recipe=run.recipe).source


def test_every_step_tells_margin_and_accuracy_and_the_preferred_answer_gains(
    dpo_plan: Any, make_base: MakeBase, pairs: Rows, blobs: LocalBlobs, told: type
) -> None:
    news = told()
    outcome = go(dpo_plan(n_epochs=10), make_base(), Examples(pairs, pairs[:3]), blobs, news)
    assert outcome.finished
    figures = {"train_loss", "train_reward_margin", "train_reward_accuracy", "train_nll_loss"}
    assert set(news.steps[1]) == figures
    assert {"valid_reward_margin", "full_valid_loss", "full_valid_reward_accuracy"} <= set(news.steps[2])
    assert news.steps[1]["train_reward_margin"] == pytest.approx(0.0, abs=1e-4), "nothing was trained yet"
    assert news.steps[20]["train_reward_margin"] > 0.5
    assert news.steps[20]["train_reward_accuracy"] == 1.0
    assert news.steps[20]["full_valid_reward_margin"] > 0.5


def test_the_reference_is_asked_once_and_kept_in_checkpoints(
    dpo_plan: Any, make_base: MakeBase, pairs: Rows, blobs: LocalBlobs, told: type
) -> None:
    run = dpo_plan()
    paused = go(run, make_base(), Examples(pairs, pairs[:2]), blobs, told(pause_after=1))
    first = known(blobs, paused.checkpoint.key, run)
    assert set(first) == {"reference.train", "reference.valid"}
    assert int(first["reference.train"].isnan().all(1).sum()) == 3, "four of seven pairs came so far"
    assert bool(first["reference.valid"].isnan().all())
    resumed = replace(run, output_key="jobs/j/2", resume_key=paused.checkpoint.key)
    outcome = go(resumed, make_base(), Examples(pairs, pairs[:2]), blobs, told())
    keys = [f"jobs/j/2/checkpoints/{step:06d}" for step in (2, 4, 6)]
    assert keys[-1] == outcome.checkpoint.key
    later = [known(blobs, key, run) for key in keys]
    assert not later[0]["reference.train"].isnan().any()
    came = ~first["reference.train"].isnan()
    assert torch.equal(later[0]["reference.train"][came], first["reference.train"][came])
    for split in ("reference.train", "reference.valid"):
        assert all(torch.equal(each[split], later[0][split]) for each in later)


def test_a_run_that_goes_on_asks_nothing_again(
    dpo_plan: Any, make_base: MakeBase, pairs: Rows, blobs: LocalBlobs, told: type
) -> None:
    """In a later epoch everything is known: another reference in the checkpoint would be believed."""
    run, straight = dpo_plan(), told()
    go(run, make_base(), Examples(pairs), blobs, straight)
    lie = known(blobs, f"{run.output_key}/checkpoints/000002", run)
    loaded = checkpoints.read(blobs, f"{run.output_key}/checkpoints/000002", recipe=run.recipe)
    lora = LoraModel(make_base().model)
    adapter = checkpoints.adapter_file.from_folder(loaded.folder, lora)
    lie["reference.train"][:, 0] += 10.0
    checkpoints.write(
        blobs, "jobs/lie", adapter=adapter, optimizer=loaded.optimizer, cursor=loaded.cursor, recipe=run.recipe, source=lie
    )
    news = told()
    go(replace(run, output_key="jobs/j/2", resume_key="jobs/lie"), make_base(), Examples(pairs), blobs, news)
    assert list(news.steps) == [3, 4, 5, 6]
    assert news.steps[3]["train_reward_margin"] == pytest.approx(straight.steps[3]["train_reward_margin"] - 5.0, abs=1e-3)


@pytest.mark.parametrize("continued", [False, True])
def test_pauses_and_crashes_at_any_points_give_the_same_bits(
    dpo_plan: Any, make_base: MakeBase, pairs: Rows, blobs: LocalBlobs, told: type, continued: bool
) -> None:
    start = go(dpo_plan(output_key="jobs/first"), make_base(), Examples(pairs), blobs, told()).checkpoint.key
    run, data, straight = dpo_plan(start_adapter=start if continued else None), Examples(pairs, pairs[:2]), told()
    whole = go(run, make_base(), data, blobs, straight)
    chance = random.Random(3)
    for trial in range(4):
        steps: dict[int, Any] = {}
        outcome, resume_key = None, None
        for leg in itertools.count():
            news = told(pause_after=chance.randint(0, 3) if leg < 4 else None)
            key = f"jobs/j/{trial}-{leg}"
            # what is kept in memory of documents is gone with each attempt
            source = Examples([pair(seed) for seed in range(7)], pairs[:2])
            outcome = go(replace(run, output_key=key, resume_key=resume_key), make_base(), source, blobs, news)
            steps |= news.steps
            resume_key = outcome.checkpoint.key
            if outcome.finished:
                break
        assert (outcome.checkpoint.sha256, outcome.trained_tokens) == (whole.checkpoint.sha256, whole.trained_tokens)
        assert steps == straight.steps
    for step in (2, 4):
        key = f"{run.output_key}/checkpoints/{step:06d}"
        news = told()
        again = go(replace(run, output_key=f"jobs/j/c{step}", resume_key=key), make_base(), data, blobs, news)
        assert again.checkpoint.sha256 == whole.checkpoint.sha256
        assert news.steps == {at: values for at, values in straight.steps.items() if at > step}


def test_the_reference_of_continued_tuning_is_the_adapter_that_it_starts_from(
    dpo_plan: Any, make_base: MakeBase, pairs: Rows, blobs: LocalBlobs, told: type
) -> None:
    first = go(dpo_plan(output_key="jobs/first"), make_base(), Examples(pairs), blobs, told())
    news = told()
    run = dpo_plan(start_adapter=first.checkpoint.key)
    go(run, make_base(), Examples(pairs), blobs, news)
    assert news.steps[1]["train_reward_margin"] == pytest.approx(0.0, abs=1e-4)
    nll = news.steps[1]["train_nll_loss"]
    assert news.steps[1]["train_loss"] == pytest.approx(math.log(2) + NLL_WEIGHT * nll, abs=1e-3)
    # after a pause too: the weights have moved since, the reference has not
    paused = go(replace(run, output_key="jobs/p"), make_base(), Examples(pairs), blobs, told(pause_after=1))
    later = told()
    go(replace(run, output_key="jobs/q", resume_key=paused.checkpoint.key), make_base(), Examples(pairs), blobs, later)
    assert later.steps == {at: values for at, values in news.steps.items() if at > 1}


def test_a_rate_beyond_reason_is_told_with_step_and_examples_and_the_last_checkpoint_stands(
    dpo_plan: Any, make_base: MakeBase, pairs: Rows, blobs: LocalBlobs, told: type
) -> None:
    news, run = told(), dpo_plan(learning_rate_multiplier=1e30, batch_size=4)
    with pytest.raises(FloatingPointError, match=r"step 2 is not finite; it was computed from example \d, \d, \d of"):
        go(run, make_base(), Examples(pairs), blobs, news)
    with pytest.raises(FloatingPointError, match=r"the validation file after step 1 is not finite; .* example 1, 2, 3, 4,"):
        go(replace(run, batch_size=7, output_key="jobs/v"), make_base(), Examples(pairs, pairs[:2]), blobs, told())
    assert not blobs.keys("jobs/v/checkpoints"), "a broken adapter is not kept"


def test_a_pair_whose_answers_are_cut_off_breaks_nothing(
    dpo_plan: Any, make_base: MakeBase, pairs: Rows, blobs: LocalBlobs, told: type
) -> None:
    silent = Example(tuple(range(3, 20)), (0.0,) * 17, truncated=True)
    half = Example(tuple(range(3, 20)), (0.0,) * 15 + (1.0,) * 2, truncated=True)
    for rows in ([[Document.of(silent, silent)]], [[Document.of(half, silent)]], [[Document.of(silent, half)]]):
        news = told()
        outcome = go(
            dpo_plan(n_epochs=1, output_key=f"jobs/{rows[0][0].n_trained}"), make_base(), Examples(rows + pairs), blobs, news
        )
        assert outcome.finished
        assert all(math.isfinite(value) for values in news.steps.values() for value in values.values())
