"""The wording of events, as recorded from OpenAI's service."""

from typing import Any

import pytest

from tunesmith.domain import events
from tunesmith.domain.job import Job


def _job(validation_file: str | None = None) -> Job:
    return Job(
        id="ftjob-1", project_id="p", organization_id="o", model="m", base="m", start_adapter=None, training_file="file-t",
        validation_file=validation_file, suffix=None, seed=1, method="supervised", method_config={}, resolved=None,
        integrations=[], metadata=None, created_at=1.0,
    )  # fmt: skip


def test_the_sentences_of_a_life() -> None:
    assert events.created(_job()).message == "Created fine-tuning job: ftjob-1"
    assert events.validating(_job()).message == "Validating training file: file-t"
    assert events.validating(_job("file-v")).message == "Validating training file: file-t and validation file: file-v"
    assert events.validated().message == "Files validated, moving job to queued state"
    assert events.started(1, 0).message == "Fine-tuning job started"
    assert events.started(2, 7).message == "Fine-tuning job continues after step 7"
    assert events.checkpoint(8, "ft:m:o::x:ckpt-step-8", 2.0).message == (
        "Checkpoint created at step 8 with Snapshot ID: ft:m:o::x:ckpt-step-8"
    )
    assert events.model_created("ft:m:o::x").message == "New fine-tuned model created: ft:m:o::x"
    assert events.succeeded().message == "The job has successfully completed"
    assert events.cancelled().message == "The job was cancelled"


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ({"train_loss": 0.125}, "Step 3/9: training loss=0.12"),
        ({"train_loss": 1, "valid_loss": 2.5}, "Step 3/9: training loss=1.00, validation loss=2.50"),
        (
            {"train_loss": 1, "valid_loss": 2.5, "full_valid_loss": 2.75},
            "Step 3/9: training loss=1.00, validation loss=2.50, full validation loss=2.75",
        ),
        ({"train_loss": None}, "Step 3/9: training loss=nan"),
    ],
)
def test_a_steps_event_tells_what_was_measured(losses: dict[str, Any], told: str) -> None:
    data = {"step": 3, "total_steps": 9, **losses}
    for method in ("supervised", "dpo"):
        event = events.step(method, data, 5.0)
        assert (event.message, event.type, event.data, event.created_at) == (told, "metrics", data, 5.0)
        assert event.idempotency_key == "s3"


@pytest.mark.parametrize(
    ("step", "measured", "told"),
    [
        (3, {"train_mean_reward": 0.421}, "Step 3/9 , train mean reward=0.42"),
        (
            3,
            {"train_mean_reward": 1, "full_valid_mean_reward": 0.5, "full_valid_mean_parse_error": 0.0, "train_loss": 0.1},
            "Step 3/9 , train mean reward=1.00, full validation mean reward=0.50, full validation mean parse error=0.00",
        ),
        (
            0,
            {"full_valid_mean_reward": 0.25, "full_valid_mean_parse_error": 0.125},
            "Step 0/9 , full validation mean reward=0.25, full validation mean parse error=0.12",
        ),
        (4, {"train_mean_reward": None}, "Step 4/9 , train mean reward=nan"),
        (5, {}, "Step 5/9 ,"),
    ],
)
def test_a_step_that_was_rewarded_tells_the_rewards(step: int, measured: dict[str, Any], told: str) -> None:
    data = {"step": step, "total_steps": 9, "scores": {"graders": [{"name": "a"}]}, **measured}
    event = events.step("reinforcement", data, 5.0)
    assert (event.message, event.type, event.data) == (told, "metrics", data)
    assert event.idempotency_key == f"s{step}"


def test_an_event_that_ends_a_job_has_one_key_whatever_the_end() -> None:
    ends = [events.succeeded(), events.failed("x"), events.cancelled()]
    assert {event.idempotency_key for event in ends} == {events.TERMINAL_KEY}
    assert [event.level for event in ends] == ["info", "error", "info"]


def test_warnings_and_losses_are_warnings() -> None:
    assert events.warning(2, "rows were cut").level == "warn"
    assert events.lost(1, "The worker died", None).message == "The worker died; the job starts again"
    assert events.lost(2, "The worker died", 40).message == (
        "The worker died; the job goes on from its checkpoint at step 40"
    )
