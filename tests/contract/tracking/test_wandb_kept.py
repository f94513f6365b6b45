"""Runs of Weights & Biases that are kept here, by the real package: every metric of the events, once, whatever happens."""

from collections.abc import Iterator
from typing import Any

import pytest

from far.wandb_kept import of_kind, plain, records

ASKED = [{"type": "wandb", "wandb": {"project": "p", "name": "my run", "entity": None, "tags": ["mine"]}}]


@pytest.fixture(scope="module")
def house(make_house: Any) -> Iterator[Any]:
    house = make_house(wandb_mode="offline")
    ours = house.recordings()
    ours.start()
    yield house
    ours.stop()


def state(house: Any, job: str) -> str:
    (told,) = house.told(job)
    return told["status"]


def test_a_run_read_back_has_every_metric_of_the_events(house: Any, wait_until: Any) -> None:
    job = house.create(integrations=ASKED)
    grader = {"name": "a", "type": "python", "train_reward_mean": 0.25}
    house.train(job, range(0, 5), scores={"train_reward_mean": 0.5, "graders": [grader]}, valid_loss=None)
    wait_until(lambda: house.told(job)[0]["last_step"] == 4)
    house.report(job, *(house.step(n) for n in range(5, 10)))
    house.finish(job, 9)
    wait_until(lambda: state(house, job) == "finished")

    found = records(house.served.composed.folder.path, job)
    history = [plain(record.item) for record in of_kind(found, "history")]
    events = house.events(job)
    assert [{key: row.get(key) for key in event.data} for row, event in zip(history, events, strict=True)] == [
        event.data for event in events
    ]
    assert [row["_step"] for row in history] == [event.data["step"] for event in events] == list(range(10))
    assert [row["_timestamp"] for row in history] == [event.created_at for event in events]
    assert history[0]["scores/graders/python/a/train_reward_mean"] == 0.25

    run = of_kind(found, "run")[0]
    assert (run.run_id, run.display_name, run.project, run.entity) == (job, "my run", "p", "")
    assert set(run.tags) == {"openai/finetune", "openai/tunesmith-nano", f"openai/{job}", "mine"}
    config = plain(run.config.update)
    config.pop("_wandb", None)
    assert config == {
        "model": "tunesmith-nano", "training_file": house.file, "validation_file": None, "seed": 3,
        "hyperparameters": {"n_epochs": 2, "batch_size": 1, "learning_rate_multiplier": 1.0},
    }  # fmt: skip
    summary: dict[str, Any] = {}
    for record in of_kind(found, "summary"):
        summary |= plain(record.update)
    model = house.client.fine_tuning.jobs.retrieve(job).fine_tuned_model
    assert (summary["status"], summary["fine_tuned_model"], summary["trained_tokens"]) == ("succeeded", model, 77)
    artifacts = [record.log_artifact.artifact for record in of_kind(found, "request") if record.HasField("log_artifact")]
    artifacts += of_kind(found, "artifact")
    assert {artifact.type for artifact in artifacts} == {"model", "fine-tune-results"}
    assert [record.exit_code for record in of_kind(found, "exit")] == [0]


def test_a_pause_is_a_preemption_and_the_run_is_whole_afterwards(house: Any, wait_until: Any) -> None:
    job = house.create(integrations=ASKED)
    house.train(job, range(1, 4))
    wait_until(lambda: house.told(job)[0]["last_step"] == 3)
    pause(house, job)
    wait_until(lambda: state(house, job) == "resting")
    found = records(house.served.composed.folder.path, job)
    assert len(of_kind(found, "preempting")) == 1
    assert [record.exit_code for record in of_kind(found, "exit")] == [1]
    house.train(job, range(4, 6), attempt=2)
    wait_until(lambda: house.told(job)[0]["last_step"] == 5)
    house.client.fine_tuning.jobs.cancel(job)
    wait_until(lambda: state(house, job) == "finished")
    found = records(house.served.composed.folder.path, job)
    assert [plain(record.item)["step"] for record in of_kind(found, "history")] == [1, 2, 3, 4, 5]
    assert [record.exit_code for record in of_kind(found, "exit")] == [255]


def pause(house: Any, job: str) -> None:
    from tunesmith.domain.states import Desired, Status
    from tunesmith.store import jobs

    with house.served.composed.db.begin() as tx:
        changes: Any = {"status": Status.PAUSED, "desired": Desired.PAUSE}
        jobs.swap(tx, house.served.scope, job, expect_status={Status.RUNNING}, **changes)
