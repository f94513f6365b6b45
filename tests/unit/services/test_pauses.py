"""Pauses over real rows and made-up processes: what is said when, what starts where, and what a lost worker leaves."""

import asyncio
from typing import Any

import pytest

from tunesmith.core.channel import Report
from tunesmith.core.errors import JobNotFound, StateConflict
from tunesmith.domain.ports import Outcome
from tunesmith.domain.reconcile import PAUSE_GRACE_S
from tunesmith.domain.scope import DEFAULT_PROJECT, Project
from tunesmith.domain.states import TERMINAL, Desired, Status
from tunesmith.services import pauses as service
from tunesmith.services.attempts import Fenced
from tunesmith.services.jobs import Jobs
from tunesmith.services.pauses import Pauses
from tunesmith.store import jobs

SCOPE = Project(DEFAULT_PROJECT)
KEY = "jobs/j/attempts/2/checkpoints/000004"


@pytest.fixture
def pauses(rig: Any) -> Pauses:
    def wake(_: float = 0.0, /) -> None:
        rig.wakes += 1
        rig.then()

    rig.wakes, rig.then = 0, lambda: None
    made = Jobs(db=rig.db, bases=None, clock=rig.clock, ids=rig.ids, limits=rig.limits, executor=rig.machine, on_change=wake)  # type: ignore[arg-type]
    return Pauses(db=rig.db, jobs=made, clock=rig.clock, on_change=wake)


def saved(rig: Any, task: Any, kind: str = "paused", step: int = 4) -> None:
    key = f"jobs/{task.job}/attempts/{task.attempt}/checkpoints/{step:06d}"
    rig.report(task, kind, f"{kind}-{step}", step=step, key=key, sha256="s", metrics={})


def training(rig: Any) -> Any:
    rig.queued("j")
    rig.ticks(1)
    return rig.machine.started[-1]


def force(rig: Any, **changes: Any) -> None:
    with rig.db.begin() as tx:
        assert jobs.swap(tx, SCOPE, "j", expect_status=frozenset(Status), **changes) is not None


def test_a_training_pauses_with_its_checkpoint_and_goes_on_from_it(rig: Any, pauses: Pauses) -> None:
    task = training(rig)
    asked = pauses.ask(SCOPE, "j")
    assert (asked.status, asked.desired, rig.wakes) == (Status.RUNNING, Desired.PAUSE, 1)
    again = pauses.ask(SCOPE, "j")
    assert (again.version, rig.texts("j")) == (asked.version, ["Pause requested"])
    rig.queued("next", queued_at=2.0)
    rig.ticks(2)
    assert rig.machine.stopped == [], "it has a minute"
    assert rig.attempts.heartbeat("j", 2, task.token) == "pause"
    saved(rig, task)
    paused = rig.job("j")
    assert paused.status is Status.PAUSED
    assert [task.job for task in rig.machine.started] == ["j"], "the slot is taken until the worker has left"
    rig.die(task, Outcome(0, None))
    rig.ticks(3)
    assert [task.job for task in rig.machine.started] == ["j", "next"]
    assert pauses.ask(SCOPE, "j") == rig.job("j")
    resumed = pauses.resume(SCOPE, "j")
    assert (resumed.status, resumed.desired, resumed.lost_attempts) == (Status.QUEUED, Desired.RUN, 0)
    assert resumed.queued_at is not None
    assert resumed.queued_at > 2.0, "it stands at the end of the queue"
    rig.die(rig.machine.started[-1])
    force_end = rig.machine.started[-1]
    rig.report(force_end, "failed", "terminal", code="c", param=None, message="m")
    rig.ticks(3)
    last = rig.machine.started[-1]
    assert (last.job, last.attempt, last.spec["resume_key"]) == ("j", 3, KEY)
    texts = rig.texts("j")
    assert [text for text in texts if "Snapshot" not in text] == [
        "Pause requested", "The job was paused after step 4", "The job was resumed",
        "Waiting: the only training slot is in use; no job is before it",
    ]  # fmt: skip


def test_a_resumed_job_waits_until_its_old_worker_has_left(rig: Any, pauses: Pauses) -> None:
    task = training(rig)
    pauses.ask(SCOPE, "j")
    saved(rig, task)
    pauses.resume(SCOPE, "j")
    rig.ticks(3)
    assert (len(rig.machine.started), rig.machine.stopped) == (1, [])
    rig.die(task)
    rig.ticks(3)
    assert rig.machine.started[-1].attempt == 3


def test_a_validation_is_killed_at_once_and_begins_anew(rig: Any, pauses: Pauses) -> None:
    rig.put("j")
    rig.ticks(1)
    (first,) = rig.machine.started
    paused = pauses.ask(SCOPE, "j")
    assert (paused.status, rig.machine.stopped) == (Status.PAUSED, [1])
    with pytest.raises(Fenced):
        rig.report(first, "validated", "validated", hyperparameters={})
    rig.ticks(3)
    assert rig.job("j").released_at is not None
    assert len(rig.machine.started) == 1
    assert pauses.resume(SCOPE, "j").status is Status.VALIDATING_FILES
    rig.ticks(2)
    assert [(task.kind, task.attempt) for task in rig.machine.started] == [("validate", 1), ("validate", 3)]
    assert rig.texts("j") == ["Validating training file: file-t", "The job was paused", "The job was resumed"]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_validation_resumed_before_its_processes_are_gone_begins_after_they_are(
    rig: Any, pauses: Pauses, restarted: bool
) -> None:
    rig.put("j")
    rig.ticks(1)
    rig.machine.stop = lambda handle: None
    rig.machine.sweep = lambda job_id, attempt=None: 0
    pauses.ask(SCOPE, "j")
    pauses.resume(SCOPE, "j")
    if restarted:
        rig.restart()
    rig.ticks(3)
    assert len(rig.machine.started) == 1
    rig.machine.living.clear()
    rig.ticks(3)
    assert [task.attempt for task in rig.machine.started] == [1, 3]
    assert rig.job("j").lost_attempts == 0
    assert not any("lost" in text or "restarted" in text for text in rig.texts("j"))


def test_what_waits_is_paused_at_once_and_does_not_start(rig: Any, pauses: Pauses) -> None:
    rig.queued("j")
    paused = pauses.ask(SCOPE, "j")
    assert (paused.status, paused.attempt) == (Status.PAUSED, 1)
    rig.ticks(2)
    assert rig.machine.started == []
    assert pauses.resume(SCOPE, "j").status is Status.QUEUED
    rig.ticks(1)
    assert [task.kind for task in rig.machine.started] == ["train"]


def test_a_job_may_be_paused_and_resumed_any_number_of_times(rig: Any, pauses: Pauses) -> None:
    rig.queued("j")
    for _ in range(4):
        pauses.ask(SCOPE, "j")
        pauses.resume(SCOPE, "j")
    assert rig.texts("j") == ["The job was paused", "The job was resumed"] * 4


def test_a_pause_that_is_withdrawn_changes_nothing_for_the_worker(rig: Any, pauses: Pauses) -> None:
    task = training(rig)
    pauses.ask(SCOPE, "j")
    resumed = pauses.resume(SCOPE, "j")
    assert (resumed.status, resumed.desired) == (Status.RUNNING, Desired.RUN)
    assert rig.attempts.heartbeat("j", 2, task.token) == "run"
    assert rig.texts("j") == ["Pause requested", "Pause withdrawn"]


def test_a_worker_that_does_not_pause_is_killed_and_its_last_checkpoint_stands(rig: Any, pauses: Pauses) -> None:
    task = training(rig)
    saved(rig, task, "checkpoint", 2)
    pauses.ask(SCOPE, "j")
    rig.ticks(1)
    (since,) = rig.scheduler._state.pausing.values()
    rig.clock.monotonic = lambda: since + PAUSE_GRACE_S
    rig.ticks(1)
    assert rig.machine.stopped == [1]
    rig.ticks(2)
    paused = rig.job("j")
    assert (paused.status, paused.lost_attempts, paused.estimated_finish) == (Status.PAUSED, 0, None)
    assert paused.released_at is not None
    reason = "The worker did not pause within 60 s and was killed"
    assert rig.texts("j")[-1] == f"{reason}; the job is paused at its checkpoint at step 2"
    pauses.resume(SCOPE, "j")
    rig.ticks(1)
    assert rig.machine.started[-1].spec["resume_key"] == "jobs/j/attempts/2/checkpoints/000002"


@pytest.mark.parametrize("restarted", [False, True])
def test_a_worker_lost_before_its_first_checkpoint_pauses_its_job_at_the_start(
    rig: Any, pauses: Pauses, restarted: bool
) -> None:
    task = training(rig)
    pauses.ask(SCOPE, "j")
    if restarted:
        rig.restart()
    rig.die(task, Outcome(None, 9))
    rig.ticks(2)
    assert rig.job("j").status is Status.PAUSED
    assert rig.texts("j")[-1] == "The worker was killed by signal 9; the job is paused at its start"


def test_what_a_dead_worker_had_not_delivered_pauses_its_job(rig: Any, pauses: Pauses) -> None:
    task = training(rig)
    pauses.ask(SCOPE, "j")
    data = {"step": 4, "key": KEY, "sha256": "s", "metrics": {}}
    rig.machine.unsent[("j", 2)] = [Report("paused", "j", 2, "paused-2", 1.0, data)]
    rig.die(task)
    rig.ticks(2)
    assert rig.job("j").status is Status.PAUSED
    assert rig.texts("j")[-1] == "The job was paused after step 4"


def test_a_loss_that_was_decided_before_the_pause_was_asked_is_no_requeue(rig: Any, pauses: Pauses) -> None:
    """Between the look and the commit: the row says what counts."""
    task = training(rig)
    rig.die(task, Outcome(None, 9))
    rig.ticks(1)
    placement = rig.scheduler._placement
    requeue, placement.requeue = placement.requeue, lambda effect: (pauses.ask(SCOPE, "j"), requeue(effect))
    rig.ticks(1)
    assert rig.job("j").status is Status.RUNNING
    rig.ticks(1)
    assert rig.job("j").status is Status.PAUSED


def test_a_pause_that_was_withdrawn_when_its_worker_was_found_dead_is_none(rig: Any, pauses: Pauses) -> None:
    task = training(rig)
    pauses.ask(SCOPE, "j")
    rig.die(task, Outcome(None, 9))
    rig.ticks(1)
    placement = rig.scheduler._placement
    pause, placement.pause = placement.pause, lambda effect: (pauses.resume(SCOPE, "j"), pause(effect))
    rig.ticks(2)
    assert rig.job("j").status is Status.QUEUED


def test_a_paused_job_whose_file_was_deleted_before_its_training_fails(rig: Any, pauses: Pauses) -> None:
    from tunesmith.store import files

    rig.queued("j")
    pauses.ask(SCOPE, "j")
    with rig.db.begin() as tx:
        files.delete_one(tx, SCOPE, "file-t")
    pauses.resume(SCOPE, "j")
    rig.ticks(1)
    failed = rig.job("j")
    assert (failed.status, failed.error and failed.error["code"]) == (Status.FAILED, "deleted_training_file")


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_what_has_ended_says_so(rig: Any, pauses: Pauses, status: Status) -> None:
    rig.queued("j", status=status)
    state = "was cancelled" if status is Status.CANCELLED else f"has already {status}"
    for call in (pauses.ask, pauses.resume):
        with pytest.raises(StateConflict, match=f"Job j {state}, so it cannot be") as told:
            call(SCOPE, "j")
        assert told.value.status == 400


def test_what_is_not_paused_cannot_be_resumed_and_a_foreign_job_is_unknown(rig: Any, pauses: Pauses) -> None:
    training(rig)
    with pytest.raises(StateConflict, match="Job j is running, so it cannot be resumed"):
        pauses.resume(SCOPE, "j")
    for call in (pauses.ask, pauses.resume):
        with pytest.raises(JobNotFound):
            call(Project("other"), "j")


def test_the_answer_waits_for_the_checkpoint(rig: Any, pauses: Pauses) -> None:
    task = training(rig)
    rig.then = lambda: saved(rig, task)
    assert asyncio.run(pauses.pause(SCOPE, "j")).status is Status.PAUSED


def test_the_answer_waits_no_longer_than_it_promises(rig: Any, pauses: Pauses, monkeypatch: pytest.MonkeyPatch) -> None:
    training(rig)
    monkeypatch.setattr(service, "ANSWER_S", 0.1)
    answer = asyncio.run(pauses.pause(SCOPE, "j"))
    assert (answer.status, answer.desired) == (Status.RUNNING, Desired.PAUSE)
    assert rig.texts("j") == ["Pause requested"]
