"""Reports become rows and events: on a real database and a real blob folder, with a clock that stands."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from near.database import make_database
from tunesmith.blobs.local import LocalBlobs
from tunesmith.core.channel import Report
from tunesmith.core.ids import Ids
from tunesmith.core.settings import Settings
from tunesmith.domain.job import Event, Job
from tunesmith.domain.scope import DEFAULT_ORGANIZATION, DEFAULT_PROJECT, Everywhere, Project
from tunesmith.domain.states import Desired, Status
from tunesmith.services.attempts import Attempts, Fenced, WrongToken, token_sha256
from tunesmith.store import checkpoints, events, files, jobs, models, outbox
from tunesmith.store.session import Database

SCOPE = Project(DEFAULT_PROJECT)
EVERYWHERE = Everywhere("a test looks at everything")
JOB = "ftjob-" + "a" * 24


class StandingClock:
    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@dataclass
class Rig:
    """A service with everything real under it, and one job."""

    db: Database
    blobs: LocalBlobs
    clock: StandingClock
    attempts: Attempts
    changes: list[int] = field(default_factory=list[int])

    def put(self, **changes: Any) -> Job:
        blank = Job(
            id=JOB, project_id=DEFAULT_PROJECT, organization_id=DEFAULT_ORGANIZATION, model="nano", base="nano",
            start_adapter=None, training_file="file-t", validation_file=None, suffix="my sfx", seed=1, method="supervised",
            method_config={"hyperparameters": {}}, resolved=None, integrations=[], metadata=None,
            created_at=self.clock.now(), attempt=1, token_sha256=token_sha256("secret"), pins={"weights": "w"},
        )  # fmt: skip
        with self.db.begin() as tx:
            return jobs.add(tx, SCOPE, replace(blank, **changes))

    def running(self, **changes: Any) -> Job:
        return self.put(status=Status.RUNNING, started_at=self.clock.now(), **changes)

    def send(self, *reports: Report, token: str = "secret", attempt: int = 1) -> str:
        return self.attempts.report(JOB, attempt, token, reports)

    def job(self) -> Job:
        with self.db.read() as tx:
            job = jobs.get(tx, SCOPE, JOB)
        assert job is not None
        return job

    def events(self) -> list[Event]:
        with self.db.read() as tx:
            found, more = events.page(tx, SCOPE, JOB, limit=100)
        assert not more
        assert [event.seq for event in found] == list(range(len(found), 0, -1))
        return found[::-1]

    def texts(self) -> list[str]:
        return [event.message for event in self.events()]

    def metrics_listed(self) -> list[dict[str, Any]]:
        with self.db.read() as tx:
            return [checkpoint.metrics for checkpoint in checkpoints.page(tx, SCOPE, JOB, limit=100)[0]]

    def steps_listed(self) -> list[int]:
        with self.db.read() as tx:
            return [checkpoint.step for checkpoint in checkpoints.page(tx, SCOPE, JOB, limit=100)[0]]

    def outbox(self) -> list[str]:
        with self.db.read() as tx:
            return outbox.pending(tx, EVERYWHERE, JOB)

    def models(self) -> dict[str, int | None]:
        with self.db.read() as tx:
            return {model.name: model.step for model in models.tuned(tx, SCOPE)}

    def cancel(self) -> None:
        with self.db.begin() as tx:
            jobs.swap(
                tx, SCOPE, JOB, expect_status={Status.RUNNING}, status=Status.CANCELLED, desired=Desired.CANCEL, attempt=2
            )


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    clock, ids = StandingClock(), Ids(random.Random(1))
    db = Database(make_database(tmp_path / "t.db"), clock=clock, ids=ids)
    blobs = LocalBlobs(tmp_path / "blobs")
    changes: list[int] = []
    attempts = Attempts(db=db, blobs=blobs, clock=clock, ids=ids, settings=Settings(), on_change=lambda: changes.append(1))
    yield Rig(db, blobs, clock, attempts, changes)
    db.close()


def report(kind: str, key: str, at: float = 1_700_000_000.0, /, **data: Any) -> Report:
    return Report(kind, JOB, 1, key, at, data)


def step(number: int, at: float = 1_700_000_000.0, **values: Any) -> Report:
    measured = {"train_loss": 1.5 / number, "train_mean_token_accuracy": 0.5, **values}
    return report("metrics", f"s{number}", at, step=number, total_steps=10, **measured)


def checkpoint(rig: Rig, number: int, kind: str = "checkpoint", **more: Any) -> Report:
    key = f"jobs/{JOB}/attempts/1/checkpoints/{number:06d}"
    rig.blobs.put(f"{key}/MANIFEST.json", [b"{}"])
    data = {"step": number, "key": key, "sha256": "0" * 64, "metrics": {"train_loss": 0.1}, **more}
    return report(kind, f"ckpt-{number}", **data)


VALIDATED = {
    "n_examples": 12, "tokens": 900, "total_steps": 36, "hyperparameters": {"n_epochs": 3, "batch_size": 1},
    "warnings": ["2 examples were cut"],
}  # fmt: skip


def test_good_files_move_the_job_to_queued(rig):
    rig.put()
    assert rig.send(report("validated", "validated", **VALIDATED)) == "run"
    job = rig.job()
    assert (job.status, job.queued_at) == (Status.QUEUED, rig.clock.now())
    assert job.resolved == {"n_epochs": 3, "batch_size": 1}
    assert job.counts == {"n_examples": 12, "tokens": 900, "total_steps": 36}
    assert rig.texts() == ["2 examples were cut", "Files validated, moving job to queued state"]
    assert [event.level for event in rig.events()] == ["warn", "info"]
    assert rig.changes


def test_bad_files_fail_the_job_with_its_error_event_and_outbox_row(rig):
    rig.put()
    rig.send(report("failed", "terminal", code="invalid_n_examples", param="training_file", message="9 example(s)"))
    job = rig.job()
    assert (job.status, job.finished_at) == (Status.FAILED, rig.clock.now())
    assert job.error == {"code": "invalid_n_examples", "param": "training_file", "message": "9 example(s)"}
    assert [(event.level, event.message) for event in rig.events()] == [("error", "9 example(s)")]
    assert rig.outbox() == ["fine_tuning.job.failed"]


def test_steps_become_metrics_events_in_openais_words(rig):
    rig.running()
    rig.send(
        report("started", "started-1", step=0, total_steps=10),
        step(1),
        step(2, valid_loss=0.25, full_valid_loss=1.0, full_valid_mean_token_accuracy=0.9),
        step(3, train_loss=None),
        report("message", "note", level="warn", message="a word"),
    )
    assert rig.texts() == [
        "Fine-tuning job started",
        "Step 1/10: training loss=1.50",
        "Step 2/10: training loss=0.75, validation loss=0.25, full validation loss=1.00",
        "Step 3/10: training loss=nan",
        "a word",
    ]
    second = rig.events()[2]
    assert second.type == "metrics"
    assert second.data is not None
    assert second.data["full_valid_mean_token_accuracy"] == 0.9


def test_a_repeated_report_changes_nothing(rig):
    rig.running()
    batch = (report("started", "started-1", step=0, total_steps=10), step(1), checkpoint(rig, 1))
    for _ in range(3):
        rig.send(*batch)
    assert len(rig.events()) == 3
    assert rig.steps_listed() == [1]
    finished = checkpoint(rig, 2, "finished", trained_tokens=5)
    for _ in range(3):
        rig.send(finished)
    assert rig.texts()[-1] == "The job has successfully completed"
    assert len(rig.events()) == 5
    assert rig.outbox() == ["fine_tuning.job.succeeded"]
    assert sorted(rig.models().values(), key=str) == [1, None]


def test_the_finish_is_estimated_from_the_pace_of_this_attempt(rig):
    rig.running()
    rig.send(step(1, 1000.0))
    assert rig.job().estimated_finish is None
    rig.send(step(2, 1010.0), step(4, 1030.0))
    assert rig.job().estimated_finish == pytest.approx(1030.0 + 6 * 10.0)
    rig.send(checkpoint(rig, 10, "finished", trained_tokens=1))
    assert rig.job().estimated_finish is None


def test_the_pace_of_a_cancelled_run_is_forgotten(rig):
    rig.running()
    rig.send(step(1, 1000.0))
    rig.cancel()
    rig.attempts.settle(JOB, 2, [])
    assert rig.attempts._pace == {}


def test_checkpoints_are_published_as_they_come_and_the_newest_three_stay(rig):
    rig.running()
    for number in (1, 2, 3, 4):
        rig.send(checkpoint(rig, number))
    assert rig.steps_listed() == [4, 3, 2]
    assert rig.metrics_listed()[0] == {"step": 4, "train_loss": 0.1, "type": "supervised"}
    names = rig.models()
    assert sorted(names.values(), key=str) == [2, 3, 4]
    assert all(
        name.startswith("ft:nano:tunesmith:my-sfx:") and name.endswith(f":ckpt-step-{n}") for name, n in names.items()
    )
    assert len({name.split(":")[4] for name in names}) == 3, "each has a tail of its own"
    assert rig.texts()[3] == f"Checkpoint created at step 4 with Snapshot ID: {next(n for n, s in names.items() if s == 4)}"
    assert rig.blobs.keys(f"jobs/{JOB}/attempts/1/checkpoints/000001") == []
    assert rig.blobs.keys(f"jobs/{JOB}/attempts/1/checkpoints/000002")


@pytest.mark.parametrize("ending", ["checkpoint", "finished"])
def test_a_checkpoint_from_which_another_job_starts_stays_as_long_as_that_job_needs_it(rig, ending):
    rig.running()
    first = checkpoint(rig, 1)
    rig.send(first)
    rig.put(id="ftjob-further", start_adapter=first.data["key"])
    rig.send(checkpoint(rig, 2), checkpoint(rig, 3), checkpoint(rig, 4))
    assert rig.steps_listed() == [4, 3, 2, 1]
    assert rig.blobs.keys(first.data["key"])
    with rig.db.begin() as tx:
        jobs.swap(tx, SCOPE, "ftjob-further", expect_status={Status.VALIDATING_FILES}, status=Status.CANCELLED)
    rig.send(checkpoint(rig, 5, ending, trained_tokens=1))
    assert rig.steps_listed() == [5, 4, 3]
    assert rig.blobs.keys(first.data["key"]) == []


def test_a_pause_is_said_with_its_checkpoint_and_once(rig):
    rig.running(desired=Desired.PAUSE)
    rig.send(step(1, 1000.0), step(2, 1010.0))
    assert rig.job().estimated_finish is not None
    paused = checkpoint(rig, 2, "paused")
    for _ in range(2):
        assert rig.send(step(2, 1010.0), paused) == "pause"
    job = rig.job()
    assert (job.status, job.estimated_finish, job.finished_at) == (Status.PAUSED, None, None)
    assert rig.steps_listed() == [2]
    (name,) = rig.models()
    assert name.endswith(":ckpt-step-2")
    assert rig.texts()[2:] == [f"Checkpoint created at step 2 with Snapshot ID: {name}", "The job was paused after step 2"]
    assert rig.changes


def test_the_checkpoint_of_a_pause_at_an_epochs_end_is_the_epochs(rig):
    rig.running(desired=Desired.PAUSE)
    rig.send(checkpoint(rig, 4), checkpoint(rig, 4, "paused"))
    assert (rig.job().status, rig.steps_listed()) == (Status.PAUSED, [4])
    with rig.db.read() as tx:
        (listed,) = checkpoints.page(tx, SCOPE, JOB)[0]
    assert not listed.by_pause, "retention counts it"


def test_a_pause_that_was_withdrawn_too_late_for_the_worker_lets_the_job_go_on(rig):
    rig.running(desired=Desired.RUN, queued_at=5.0)
    assert rig.send(step(1), checkpoint(rig, 1, "paused")) == "run"
    job = rig.job()
    assert (job.status, job.queued_at) == (Status.QUEUED, 5.0)
    assert rig.steps_listed() == [1]
    assert not any("paused" in text for text in rig.texts())


def test_the_checkpoints_of_pauses_stay_beside_the_newest_three(rig):
    rig.running(desired=Desired.PAUSE)
    for number in range(1, 8):
        rig.send(checkpoint(rig, number, "checkpoint" if number % 2 else "paused"))
        with rig.db.begin() as tx:
            for status in (Status.QUEUED, Status.RUNNING):
                assert jobs.swap(tx, SCOPE, JOB, expect_status=frozenset(Status), status=status)
    assert rig.steps_listed() == [7, 6, 5, 4, 3, 2]
    rig.send(checkpoint(rig, 9, "finished", trained_tokens=1))
    assert rig.steps_listed() == [9, 7, 6, 5, 4, 2]
    assert rig.blobs.keys(f"jobs/{JOB}/attempts/1/checkpoints/000003") == []
    assert rig.blobs.keys(f"jobs/{JOB}/attempts/1/checkpoints/000002")
    assert len(rig.models()) == 6


def test_finishing_is_one_commit_with_everything_in_it(rig):
    rig.running()
    rig.send(step(1), step(2), checkpoint(rig, 1), checkpoint(rig, 2), checkpoint(rig, 3))
    rig.send(step(10, valid_loss=0.5), checkpoint(rig, 10, "finished", trained_tokens=4321))
    job = rig.job()
    assert (job.status, job.finished_at, job.trained_tokens) == (Status.SUCCEEDED, rig.clock.now(), 4321)
    assert rig.steps_listed() == [10, 3, 2]
    assert rig.models()[job.fine_tuned_model or ""] is None
    assert rig.texts()[-2:] == [
        f"New fine-tuned model created: {job.fine_tuned_model}", "The job has successfully completed",
    ]  # fmt: skip
    assert rig.outbox() == ["fine_tuning.job.succeeded"]
    with rig.db.read() as tx:
        result = files.get(tx, SCOPE, job.result_files[0])
    assert result is not None
    assert (result.purpose, result.filename) == ("fine-tune-results", "step_metrics.csv")
    with rig.blobs.open(result.key) as stream:
        lines = stream.read().decode().splitlines()
    assert lines[0].startswith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy")
    assert lines[1:] == [
        "1,1.50000,0.50000,,,0.50000,,",
        "2,0.75000,0.50000,,,0.50000,,",
        "10,0.15000,0.50000,0.50000,,0.50000,,",
    ]
    assert result.bytes == sum(len(line) + 1 for line in lines)


def test_the_final_checkpoint_replaces_one_of_the_same_step(rig):
    rig.running()
    rig.send(checkpoint(rig, 10), checkpoint(rig, 10, "finished", trained_tokens=1))
    assert rig.steps_listed() == [10]
    assert list(rig.models().values()) == [None]
    assert rig.blobs.keys(f"jobs/{JOB}/attempts/1/checkpoints/000010")


def test_a_worker_that_comes_too_late_cannot_write(rig):
    rig.running()
    rig.send(step(1))
    rig.cancel()
    for late in (step(2), checkpoint(rig, 2), checkpoint(rig, 3, "finished", trained_tokens=1)):
        with pytest.raises(Fenced):
            rig.send(late)
    with pytest.raises(Fenced):
        rig.attempts.heartbeat(JOB, 1, "secret")
    rig.attempts.settle(JOB, 1, [step(2)])
    assert rig.job().status is Status.CANCELLED
    assert rig.texts() == ["Step 1/10: training loss=1.50"]
    assert rig.models() == {}


def test_a_stranger_cannot_write(rig):
    rig.running()
    with pytest.raises(WrongToken):
        rig.send(step(1), token="guess")
    with pytest.raises(WrongToken):
        rig.attempts.heartbeat(JOB, 1, "")
    with pytest.raises(Fenced):
        rig.attempts.report("ftjob-none", 1, "secret", [])
    assert rig.events() == []


def test_a_heartbeat_tells_what_the_owner_wants(rig):
    rig.running(desired=Desired.PAUSE)
    assert rig.attempts.heartbeat(JOB, 1, "secret") == "pause"
    assert rig.send() == "pause"


def test_after_the_end_an_attempt_may_still_say_goodbye(rig):
    rig.running()
    rig.send(report("failed", "terminal", code="server_error", param=None, message="crashed"))
    n_changes = len(rig.changes)
    assert rig.send(step(5), report("exited", "exit-1", exit_code=1)) == "run"
    assert rig.texts() == ["crashed"]
    assert len(rig.changes) == n_changes + 1, "its leaving wakes the scheduler"


def test_what_a_dead_attempt_had_not_delivered_is_taken_once(rig):
    rig.running()
    rig.send(step(1))
    rest = [step(1), step(2), checkpoint(rig, 10, "finished", trained_tokens=7)]
    rig.attempts.settle(JOB, 1, rest)
    rig.attempts.settle(JOB, 1, rest)
    assert rig.job().status is Status.SUCCEEDED
    assert len(rig.events()) == 4


def test_a_resumed_run_says_where_it_goes_on(rig):
    rig.running(attempt=2)
    rig.send(Report("started", JOB, 2, "started-2", 1.0, {"step": 40, "total_steps": 80}), attempt=2)
    assert rig.texts() == ["Fine-tuning job continues after step 40"]


def test_a_result_file_that_cannot_be_written_leaves_the_job_running(rig, monkeypatch):
    rig.running()
    finished = checkpoint(rig, 10, "finished", trained_tokens=7)
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "blobs.rename=raise")
    with pytest.raises(OSError, match="No space left"):
        rig.send(step(9), finished)
    assert (rig.job().status, rig.job().result_files) == (Status.RUNNING, [])
    monkeypatch.delenv("TUNESMITH_FAILPOINTS")
    rig.send(step(9), finished)
    assert rig.job().status is Status.SUCCEEDED
    assert json.dumps(rig.job().result_files)
