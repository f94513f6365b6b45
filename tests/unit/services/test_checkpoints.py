"""Which checkpoints of a job stay listed, by method."""

from typing import Any

import pytest

from tunesmith.core.channel import Report
from tunesmith.domain.job import Checkpoint
from tunesmith.domain.model import Alias
from tunesmith.domain.scope import DEFAULT_PROJECT, Project
from tunesmith.domain.states import Desired, Status
from tunesmith.services.attempts import token_sha256
from tunesmith.store import checkpoints, jobs, models

SCOPE = Project(DEFAULT_PROJECT)


class Run:
    """A job that trains, as far as its checkpoints go."""

    def __init__(self, rig: Any, method: str) -> None:
        self.rig = rig
        self.id = rig.put(
            "ftjob-x", method=method, status=Status.RUNNING, attempt=1, token_sha256=token_sha256("secret"), started_at=1.0
        )

    def send(self, kind: str, step: int, reward: float | None = None, **more: Any) -> None:
        key = f"jobs/{self.id}/attempts/1/checkpoints/{step:06d}"
        self.rig.blobs.put(f"{key}/MANIFEST.json", [b"{}"])
        metrics: dict[str, Any] = {"train_mean_reward": 0.5, "scores": {"graders": [{"name": "a"}]}}
        if reward is not None:
            metrics["valid_reward_mean"] = reward
        data = {"step": step, "key": key, "sha256": "0" * 64, "metrics": metrics, **more}
        self.rig.attempts.report(self.id, 1, "secret", [Report(kind, self.id, 1, f"{kind}-{step}", 1.0, data)])

    def listed(self) -> list[Checkpoint]:
        with self.rig.db.read() as tx:
            return checkpoints.page(tx, SCOPE, self.id, limit=100)[0]

    def steps(self) -> list[int]:
        return [checkpoint.step for checkpoint in self.listed()]

    def has_bytes(self, step: int) -> bool:
        return bool(self.rig.blobs.keys(f"jobs/{self.id}/attempts/1/checkpoints/{step:06d}"))

    def set(self, **changes: Any) -> None:
        with self.rig.db.begin() as tx:
            assert jobs.swap(tx, SCOPE, self.id, expect_status=frozenset(Status), **changes)


@pytest.fixture
def run(rig: Any) -> Run:
    return Run(rig, "reinforcement")


def test_one_that_a_pause_published_before_its_step_was_measured_gets_its_figures_later(run: Run) -> None:
    run.send("paused", 2)
    (before,) = run.listed()
    assert "valid_reward_mean" not in before.metrics
    run.set(status=Status.RUNNING)
    run.send("checkpoint", 2, 0.7)
    (after,) = run.listed()
    assert (after.id, after.key, after.by_pause, after.model_name) == (before.id, before.key, True, before.model_name)
    assert after.metrics["valid_reward_mean"] == 0.7


def test_the_best_three_by_reward_stay_and_the_newest_beside_them(run: Run) -> None:
    for step, reward, listed in (
        (2, 0.5, [2]),
        (4, 0.9, [4, 2]),
        (6, 0.1, [6, 4, 2]),
        (8, 0.2, [8, 4, 2]),
        (10, 0.05, [10, 8, 4, 2]),
        (12, 0.8, [12, 4, 2]),
        (14, 0.3, [14, 12, 4, 2]),
    ):
        run.send("checkpoint", step, reward)
        assert run.steps() == listed, step
    assert [run.has_bytes(step) for step in (2, 4, 6, 8, 10, 12, 14)] == [True, True, False, False, False, True, True]


def test_of_equal_rewards_the_newer_stays(run: Run) -> None:
    for step in (1, 2, 3, 4):
        run.send("checkpoint", step, 0.5)
    assert run.steps() == [4, 3, 2]


def test_one_whose_reward_was_not_measured_is_behind_all_others(run: Run) -> None:
    for step, reward in ((1, -2.0), (2, None), (3, -3.0), (4, None), (5, -1.0), (6, 0.0)):
        run.send("checkpoint", step, reward)
    assert run.steps() == [6, 5, 1]


@pytest.mark.parametrize(("reward", "listed"), [(0.95, [9, 6, 4]), (0.0, [9, 6, 4, 2]), (None, [9, 6, 4, 2])])
def test_at_the_end_the_result_stands_beside_the_best(run: Run, reward: float | None, listed: list[int]) -> None:
    for step, earlier in ((2, 0.5), (4, 0.9), (6, 0.7), (8, 0.1)):
        run.send("checkpoint", step, earlier)
    run.send("finished", 9, reward, trained_tokens=7)
    assert run.rig.job(run.id).status is Status.SUCCEEDED
    assert run.steps() == listed
    assert run.listed()[0].model_name == run.rig.job(run.id).fine_tuned_model


def test_the_final_one_is_the_one_of_its_step(run: Run) -> None:
    for step, reward in ((2, 0.5), (4, 0.9)):
        run.send("checkpoint", step, reward)
    run.send("finished", 4, 0.9, trained_tokens=7)
    assert run.steps() == [4, 2]
    assert run.has_bytes(4)


def test_one_that_a_pause_asked_for_stays_whatever_its_reward(run: Run) -> None:
    run.set(desired=Desired.PAUSE)
    run.send("paused", 1, -9.0)
    run.set(status=Status.QUEUED, desired=Desired.RUN)
    run.set(status=Status.RUNNING)
    for step in (2, 3, 4, 5):
        run.send("checkpoint", step, step / 10)
    assert run.steps() == [5, 4, 3, 1]


def test_one_that_has_an_alias_stays_whatever_its_reward(run: Run) -> None:
    run.send("checkpoint", 1, -9.0)
    with run.rig.db.begin() as tx:
        models.add_alias(tx, SCOPE, Alias("mine", SCOPE.project_id, run.listed()[0].model_name, 1.0))
    for step in (2, 3, 4, 5):
        run.send("checkpoint", step, step / 10)
    assert run.steps() == [5, 4, 3, 1]


def test_the_whole_of_the_metrics_is_listed_with_the_method(run: Run) -> None:
    run.send("checkpoint", 2, 0.5)
    assert run.listed()[0].metrics == {
        "step": 2,
        "train_mean_reward": 0.5,
        "scores": {"graders": [{"name": "a"}]},
        "valid_reward_mean": 0.5,
        "type": "reinforcement",
    }


def test_other_methods_keep_the_newest_three(rig: Any) -> None:
    run = Run(rig, "dpo")
    for step, reward in ((1, 0.9), (2, 0.8), (3, 0.1), (4, 0.0)):
        run.send("checkpoint", step, reward)
    assert run.steps() == [4, 3, 2]
    assert run.listed()[0].metrics["type"] == "dpo"
