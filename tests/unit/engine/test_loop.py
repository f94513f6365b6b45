import itertools
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.blobs.local import LocalBlobs
from tunesmith.engine import order as ordering
from tunesmith.engine.checkpoints import CheckpointRefused
from tunesmith.engine.document import Document
from tunesmith.engine.examples import Examples
from tunesmith.engine.loop import Outcome, train
from tunesmith.engine.order import order
from tunesmith.engine.run import Run
from tunesmith.lm.adapter_file import AdapterRefused
from tunesmith.lm.load import Base
from tunesmith.lm.lora import LoraModel

Plan = Callable[..., Run]
MakeBase = Callable[..., Base]


def go(run: Run, base: Base, source: Examples, blobs: LocalBlobs, told: Any) -> Outcome:
    return train(run, base, lora=LoraModel(base.model), source=source, blobs=blobs, reporter=told, control=told)


def test_a_run_reports_every_step_and_a_checkpoint_an_epoch(
    plan: Plan, make_base: MakeBase, documents: list[list[Document]], blobs: LocalBlobs, told: type
) -> None:
    news = told()
    outcome = go(plan(), make_base(), Examples(documents, documents[:3]), blobs, news)
    assert news.start == (0, 6)
    assert list(news.steps) == [1, 2, 3, 4, 5, 6]
    assert set(news.steps[1]) == {"train_loss", "train_mean_token_accuracy"}
    validated = {"valid_loss", "valid_mean_token_accuracy", "full_valid_loss", "full_valid_mean_token_accuracy"}
    assert all(set(news.steps[step]) >= validated for step in (2, 4, 6))
    assert [(step, key) for step, key, _, _ in news.checkpoints] == [
        (2, "jobs/j/attempts/1/checkpoints/000002"),
        (4, "jobs/j/attempts/1/checkpoints/000004"),
    ]
    assert outcome.finished
    assert outcome.checkpoint.key == "jobs/j/attempts/1/checkpoints/000006"
    assert outcome.checkpoint.metrics == news.steps[6]
    assert outcome.trained_tokens == 3 * sum(len(document) for row in documents for document in row)
    assert outcome.total_steps == 6


def test_validation_comes_every_ten_steps_too(
    plan: Plan, make_base: MakeBase, documents: list[list[Document]], blobs: LocalBlobs, told: type
) -> None:
    news = told()
    go(plan(n_epochs=2, batch_size=1), make_base(), Examples(documents, documents), blobs, news)
    assert [step for step, values in news.steps.items() if "valid_loss" in values] == [7, 10, 14]
    assert [step for step, values in news.steps.items() if "full_valid_loss" in values] == [7, 14]


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    plan: Plan, make_base: MakeBase, documents: list[list[Document]], blobs: LocalBlobs, told: type
) -> None:
    hashes = [
        go(plan(seed=seed, output_key=f"jobs/{i}"), make_base(), Examples(documents), blobs, told()).checkpoint.sha256
        for i, seed in enumerate((1, 1, 2))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_going_on_from_a_checkpoint_gives_the_same_bits(
    plan: Plan, make_base: MakeBase, documents: list[list[Document]], blobs: LocalBlobs, told: type, dtype: torch.dtype
) -> None:
    data = Examples(documents, documents[:2])
    straight, resumed = told(), told()
    whole = go(plan(), make_base(dtype), data, blobs, straight)
    for step in (2, 4, 6):
        resumed = told()
        run = plan(output_key=f"jobs/j/from-{step}", resume_key=f"jobs/j/attempts/1/checkpoints/{step:06d}")
        again = go(run, make_base(dtype), data, blobs, resumed)
        assert resumed.start == (step, 6)
        assert again.checkpoint.sha256 == whole.checkpoint.sha256
        assert again.trained_tokens == whole.trained_tokens
        assert again.checkpoint.metrics == whole.checkpoint.metrics
        assert resumed.steps == {at: values for at, values in straight.steps.items() if at > step}


def test_a_pause_writes_a_checkpoint_at_the_next_boundary(
    plan: Plan, make_base: MakeBase, documents: list[list[Document]], blobs: LocalBlobs, told: type
) -> None:
    whole = go(plan(), make_base(), Examples(documents), blobs, told())
    paused = go(plan(output_key="jobs/j/p"), make_base(), Examples(documents), blobs, told(pause_after=3))
    assert not paused.finished
    assert paused.checkpoint.step == 3
    assert paused.checkpoint.key == "jobs/j/p/checkpoints/000003"
    assert set(paused.checkpoint.metrics) == {"train_loss", "train_mean_token_accuracy"}
    resumed = go(
        plan(output_key="jobs/j/r", resume_key=paused.checkpoint.key), make_base(), Examples(documents), blobs, told()
    )
    assert resumed.checkpoint.sha256 == whole.checkpoint.sha256
    at_epoch_end = go(plan(output_key="jobs/j/q"), make_base(), Examples(documents), blobs, told(pause_after=2))
    assert at_epoch_end.checkpoint.key == "jobs/j/q/checkpoints/000002"


def test_pauses_at_any_points_any_number_of_times_give_the_same_bits(
    plan: Plan, make_base: MakeBase, documents: list[list[Document]], blobs: LocalBlobs, told: type
) -> None:
    data = Examples(documents, documents[:2])
    run = plan(n_epochs=4, batch_size=1)
    straight = told()
    whole = go(run, make_base(), data, blobs, straight)
    chance = random.Random(20)
    for trial in range(5):
        steps: dict[int, dict[str, Any]] = {}
        outcome, resume_key = None, None
        for leg in itertools.count():
            news = told(pause_after=chance.randint(0, 12) if leg < 4 else None)
            key = f"jobs/j/{trial}-{leg}"
            outcome = go(replace(run, output_key=key, resume_key=resume_key), make_base(), data, blobs, news)
            steps |= news.steps
            resume_key = outcome.checkpoint.key
            if outcome.finished:
                break
        assert (outcome.checkpoint.sha256, outcome.trained_tokens) == (whole.checkpoint.sha256, whole.trained_tokens)
        assert steps == straight.steps


def test_an_adapter_to_start_from_is_trained_further(
    plan: Plan, make_base: MakeBase, documents: list[list[Document]], blobs: LocalBlobs, told: type
) -> None:
    first = go(plan(), make_base(), Examples(documents), blobs, told())
    fresh, further = told(), told()
    go(plan(output_key="jobs/f"), make_base(), Examples(documents), blobs, fresh)
    go(plan(output_key="jobs/g", start_adapter=first.checkpoint.key), make_base(), Examples(documents), blobs, further)
    assert further.steps[1]["train_loss"] < fresh.steps[1]["train_loss"]
    with pytest.raises(AdapterRefused):
        go(plan(output_key="jobs/h", start_adapter="jobs/nowhere"), make_base(), Examples(documents), blobs, told())


def test_a_checkpoint_of_another_run_is_refused(
    plan: Plan, make_base: MakeBase, documents: list[list[Document]], blobs: LocalBlobs, told: type
) -> None:
    first = go(plan(), make_base(), Examples(documents), blobs, told())
    other = plan(resume_key=first.checkpoint.key, recipe={"base": "tiny", "pins": {"weights": "w"}, "seed": 2})
    with pytest.raises(CheckpointRefused, match="differs in seed"):
        go(other, make_base(), Examples(documents), blobs, told())


def test_a_small_set_is_learnt_by_heart(
    plan: Plan, make_base: MakeBase, documents: list[list[Document]], blobs: LocalBlobs, told: type
) -> None:
    news = told()
    run = plan(n_epochs=60, batch_size=2, learning_rate_multiplier=6.0)
    go(run, make_base(), Examples(documents[:4]), blobs, news)
    last = news.steps[max(news.steps)]
    assert news.steps[1]["train_loss"] > 3
    assert last["train_loss"] < 0.2
    assert last["train_mean_token_accuracy"] > 0.95


def test_a_step_whose_rows_train_nothing_is_not_reported(
    plan: Plan, make_base: MakeBase, document: Callable[..., Document], blobs: LocalBlobs, told: type
) -> None:
    news = told()
    rows = [[document(6, range(0), 1)], [document(6, range(2, 6), 2)]]
    outcome = go(plan(n_epochs=1, batch_size=1), make_base(), Examples(rows), blobs, news)
    assert len(news.steps) == 1
    assert outcome.trained_tokens == 12


@pytest.mark.parametrize("silent", [range(1), range(1, 2), range(3)])
def test_going_on_after_steps_that_trained_nothing_gives_the_same_bits(
    plan: Plan, make_base: MakeBase, document: Callable[..., Document], blobs: LocalBlobs, told: type, silent: range
) -> None:
    rows = [[document(6, range(0) if row in silent else range(2, 6), row)] for row in range(3)]
    whole = go(plan(n_epochs=2, batch_size=1), make_base(), Examples(rows), blobs, told())
    resume_key = "jobs/j/attempts/1/checkpoints/000003"
    again = go(
        plan(n_epochs=2, batch_size=1, output_key="jobs/j/2", resume_key=resume_key),
        make_base(),
        Examples(rows),
        blobs,
        told(),
    )
    assert again.checkpoint.sha256 == whole.checkpoint.sha256


def test_an_epoch_is_shuffled_once(
    plan: Plan, make_base: MakeBase, documents: list[list[Document]], blobs: LocalBlobs, told: type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    epochs: list[int] = []

    def watched(n_rows: int, *, seed: int, epoch: int) -> list[int]:
        epochs.append(epoch)
        return order(n_rows, seed=seed, epoch=epoch)

    monkeypatch.setattr(ordering, "order", watched)
    go(plan(), make_base(), Examples(documents), blobs, told())
    assert epochs == [0, 1, 2]


def test_nothing_to_train_is_an_error(plan: Plan, make_base: MakeBase, blobs: LocalBlobs, told: type) -> None:
    with pytest.raises(ValueError, match="nothing to train"):
        go(plan(), make_base(), Examples([]), blobs, told())


def test_a_rate_beyond_reason_is_told_as_divergence(
    plan: Plan, make_base: MakeBase, documents: list[list[Document]], blobs: LocalBlobs, told: type
) -> None:
    run = replace(plan(), learning_rate_multiplier=1e30)
    with pytest.raises(FloatingPointError, match="not finite"):
        go(run, make_base(), Examples(documents), blobs, told())


def test_an_adapter_that_the_last_step_broke_is_not_kept(
    plan: Plan, make_base: MakeBase, documents: list[list[Document]], blobs: LocalBlobs, told: type
) -> None:
    run = replace(plan(), learning_rate_multiplier=1e30, n_epochs=1, batch_size=len(documents))
    with pytest.raises(FloatingPointError, match=r"the training file after step 1 is not finite; .* example 1, 2,"):
        go(run, make_base(), Examples(documents), blobs, told())
    assert not blobs.keys(f"{run.output_key}/checkpoints")


def test_a_process_killed_while_it_writes_leaves_no_checkpoint_that_counts(tmp_path: Path) -> None:
    """Between the files and the manifest: what lies there is incomplete and refused; the one before is whole."""
    script = tmp_path / "write.py"
    script.write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from tunesmith.blobs.local import LocalBlobs\n"
        "from tunesmith.engine import checkpoints\n"
        "from tunesmith.engine.checkpoints import Cursor\n"
        "from tunesmith.lm.lora import LoraModel\n"
        "model = torch.nn.Sequential(torch.nn.Linear(4, 4))\n"
        "adapter = LoraModel(model).fresh(seed=1, rank=1)\n"
        "blobs = LocalBlobs(Path(sys.argv[1]))\n"
        "for step in (1, 2):\n"
        "    checkpoints.write(blobs, f'c/{step}', adapter=adapter, optimizer={}, cursor=Cursor(step, 0, {}), recipe={})\n"
    )
    environment = os.environ | {"TUNESMITH_FAILPOINTS": "checkpoint.manifest=kill@2"}
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "b")], env=environment, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    from tunesmith.engine import checkpoints

    blobs = LocalBlobs(tmp_path / "b")
    assert checkpoints.read(blobs, "c/1", recipe={}).cursor.step == 1
    with pytest.raises(CheckpointRefused, match="incomplete"):
        checkpoints.read(blobs, "c/2", recipe={})
