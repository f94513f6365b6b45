"""Reinforcement that is paused and that crashes, at any point: it ends with the same bits as if nothing had happened."""

import random
import threading
import time
from typing import Any

import pytest

from tunesmith.graders.base import Grade, Sample


def untimed(values: Any) -> Any:
    """Return figures without those that tell how long something took."""
    if isinstance(values, dict):
        return {key: untimed(value) for key, value in values.items() if key != "timing"}
    return [untimed(value) for value in values] if isinstance(values, list | tuple) else values


class Nervous:
    """A control that asks for a pause at a number of looks; a run looks before every pass of sampling."""

    def __init__(self, news: Any, n_looks: float) -> None:
        self._news, self._n_looks = news, n_looks
        self.n_looked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._news, name)

    def pause_asked(self) -> bool:
        self.n_looked += 1
        return self.n_looked > self._n_looks


def test_pauses_at_any_points_any_number_of_times_give_the_same_bits(prompts_plan: Any, rig: Any) -> None:
    straight = Nervous(rig.told(), float("inf"))
    whole = rig.go(prompts_plan(output_key="jobs/s"), straight)
    expected = [rig.records(step, "jobs/s") for step in range(5)]
    chance, n_paused = random.Random(11), 0
    for trial in range(4):
        steps: dict[int, Any] = {}
        told: list[tuple[int, str, Any]] = []
        keys: list[str] = []
        outcome, resume_key = None, None
        while outcome is None or not outcome.finished:
            keys.append(f"jobs/{trial}-{len(keys)}")
            limit = chance.randint(0, straight.n_looked // 2) if len(keys) < 5 else float("inf")
            news = Nervous(rig.told(), limit)
            outcome = rig.go(prompts_plan(output_key=keys[-1], resume_key=resume_key), news)
            steps |= news.steps
            told += [(step, sha256, metrics) for step, _, sha256, metrics in news.checkpoints]
            resume_key = outcome.checkpoint.key
            n_paused += not outcome.finished
        assert (outcome.checkpoint.sha256, outcome.trained_tokens) == (whole.checkpoint.sha256, whole.trained_tokens)
        assert untimed(steps) == untimed(straight.steps)
        assert untimed(outcome.checkpoint.metrics) == untimed(whole.checkpoint.metrics)
        assert untimed(told) == untimed([(step, sha256, metrics) for step, _, sha256, metrics in straight.checkpoints])
        assert [rig.records(step, *keys) for step in range(5)] == expected
    assert n_paused >= 8


def test_a_run_goes_on_from_its_newest_checkpoint_as_if_it_had_not_crashed(prompts_plan: Any, rig: Any) -> None:
    straight, again = rig.told(), rig.told()
    whole = rig.go(prompts_plan(), straight)
    for step in (2, 4):
        key = f"jobs/j/attempts/1/checkpoints/{step:06d}"
        again = rig.told()
        outcome = rig.go(prompts_plan(output_key=f"jobs/j/attempts/{step}", resume_key=key), again)
        assert again.start == (step, 4)
        assert outcome.checkpoint.sha256 == whole.checkpoint.sha256
        assert untimed(again.steps) == untimed({at: values for at, values in straight.steps.items() if at > step})
    for step in (3, 4):
        assert rig.records(step, "jobs/j/attempts/2") == rig.records(step, "jobs/j/attempts/1")


class Impatient(Nervous):
    """A control that asks for a pause once a grader hangs."""

    def __init__(self, news: Any, hangs: threading.Event) -> None:
        super().__init__(news, 0)
        self._hangs = hangs

    def pause_asked(self) -> bool:
        return self._hangs.is_set()


@pytest.mark.parametrize(("n_graded", "step"), [(2, 0), (4 + 3, 0), (4 + 8 + 8 + 1, 2)])
def test_a_pause_does_not_wait_for_a_grader_that_hangs(prompts_plan: Any, rig: Any, n_graded: int, step: int) -> None:
    """In the evaluation before the first step, in a step, and in the evaluation after the second one."""
    straight = rig.told()
    whole = rig.go(prompts_plan(output_key="jobs/s"), straight)
    rig.samples.clear()
    hangs, released = threading.Event(), threading.Event()

    def hanging(sample: Sample, grader: Any) -> Grade:
        if len(rig.samples) >= n_graded:
            hangs.set()
            released.wait(60)
        return rig.grade(sample, grader)

    news = Impatient(rig.told(), hangs)
    try:
        began = time.monotonic()
        paused = rig.go(prompts_plan(), news, grading=hanging)
        assert time.monotonic() - began < 50
    finally:
        released.set()
    assert not paused.finished
    assert paused.checkpoint.step == step
    assert max(news.steps, default=0) == max(0, step - 1), "the step was taken, and not told of yet"
    later = rig.told()
    outcome = rig.go(prompts_plan(output_key="jobs/j/attempts/2", resume_key=paused.checkpoint.key), later)
    assert outcome.checkpoint.sha256 == whole.checkpoint.sha256
    assert untimed(news.steps | later.steps) == untimed(straight.steps)
    both = ("jobs/j/attempts/1", "jobs/j/attempts/2")
    assert [rig.records(at, *both) for at in range(5)] == [rig.records(at, "jobs/s") for at in range(5)]
    if step:
        told, key, sha256, metrics = later.checkpoints[0]
        assert (told, key, sha256) == (step, paused.checkpoint.key, paused.checkpoint.sha256)
        assert "valid_reward_mean" in metrics
        assert "valid_reward_mean" not in paused.checkpoint.metrics
