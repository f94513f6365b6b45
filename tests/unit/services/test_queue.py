"""The queue over real rows: who starts when, what the waiting are told, and what their owners see."""

from typing import Any

import pytest

from tunesmith.core.errors import InvalidRequest, JobNotFound
from tunesmith.domain import reconcile
from tunesmith.domain.ports import Outcome
from tunesmith.domain.queue import Load, Reason
from tunesmith.domain.scope import DEFAULT_PROJECT, Project
from tunesmith.domain.states import Desired, Status
from tunesmith.services.jobs import Jobs
from tunesmith.services.pauses import Pauses
from tunesmith.services.queue import Queue
from tunesmith.store import jobs

SCOPE, OTHER = Project(DEFAULT_PROJECT), Project("proj_other")
ONLY_SLOT = "Waiting: the only training slot is in use"


@pytest.fixture
def make(make_rig: Any) -> Any:
    """Return a maker of rigs with two projects that each have a file."""

    def make(**settings: Any) -> Any:
        rig = make_rig(**settings)
        rig.file("file-t")
        rig.file("file-o", OTHER.project_id)
        return rig

    return make


def others(rig: Any, name: str, **changes: Any) -> str:
    return rig.queued(name, project_id=OTHER.project_id, training_file="file-o", **changes)


def service(rig: Any) -> Queue:
    return Queue(db=rig.db, clock=rig.clock, limits=rig.limits)


def pauses(rig: Any) -> Pauses:
    def wake(after_s: float = 0.0, /) -> None:
        del after_s

    common = {"db": rig.db, "clock": rig.clock, "ids": rig.ids, "limits": rig.limits}
    made = Jobs(bases=None, executor=rig.machine, on_change=wake, **common)
    return Pauses(db=rig.db, jobs=made, clock=rig.clock, on_change=wake)


def started(rig: Any) -> list[str]:
    return [task.job for task in rig.machine.started]


def ends(rig: Any, name: str) -> None:
    """Let a job's worker report a failure and leave."""
    task = next(task for task in rig.machine.started[::-1] if task.job == name)
    rig.report(task, "failed", "terminal", code="c", param=None, message="m")
    rig.die(task)
    rig.ticks(3)


def at_once(rig: Any, name: str) -> None:
    """Let a job's backoff be over."""
    with rig.db.begin() as tx:
        assert jobs.swap(tx, SCOPE, name, expect_status={Status.QUEUED}, not_before=0.0)


def test_a_project_at_its_limit_lets_the_others_go_before(make: Any) -> None:
    rig = make(training_slots=3, training_slots_per_project=2)
    for number in range(40):
        rig.queued(f"a{number:02}", queued_at=float(number))
    others(rig, "b0", queued_at=90.0)
    others(rig, "b1", queued_at=91.0)
    rig.ticks(1)
    assert started(rig) == ["a00", "a01", "b0"], "at one look, however long the backlog before it is"
    rig.ticks(3)
    assert len(started(rig)) == 3
    ends(rig, "a00")
    assert started(rig)[3:] == ["a02"], "first in, first out between projects under their limit"
    ends(rig, "b0")
    assert started(rig)[4:] == ["b1"]
    ends(rig, "b1")
    assert len(started(rig)) == 5, "a free slot is not for a project at its limit"


def test_a_project_has_a_limit_of_its_own(make: Any) -> None:
    rig = make(training_slots=4, training_slots_per_project=1)
    rig.limits.set_quotas(OTHER, {"training_slots": 2})
    for number in range(3):
        rig.queued(f"a{number}", queued_at=float(number))
        others(rig, f"b{number}", queued_at=float(number) + 0.5)
    rig.ticks(2)
    assert sorted(started(rig)) == ["a0", "b0", "b1"]
    assert "Its project has 2 running jobs, its limit; no job is before it" in service(rig).get(OTHER, "b2").message
    assert "Its project has 1 running job, its limit; no job is before it" in service(rig).get(SCOPE, "a1").message
    rig.limits.set_quotas(SCOPE, {"training_slots": None})
    rig.ticks(2)
    assert sorted(started(rig)) == ["a0", "a1", "b0", "b1"]


def test_a_job_that_fails_again_and_again_blocks_nobody_and_keeps_its_place(make: Any) -> None:
    rig = make()
    for number, name in enumerate(["bad", "next", "last"]):
        rig.queued(name, queued_at=float(number))
    rig.ticks(1)
    rig.die(rig.machine.started[0], Outcome(None, 9))
    rig.ticks(4)
    assert started(rig) == ["bad", "next"]
    assert rig.job("bad").queued_at == 0.0
    assert service(rig).get(SCOPE, "bad").reason is Reason.BACKOFF
    at_once(rig, "bad")
    ends(rig, "next")
    assert started(rig) == ["bad", "next", "bad"], "before those that came later"


def test_a_resumed_job_stands_at_the_end(make: Any) -> None:
    rig = make(validation_slots=1)
    rig.queued("at-work", queued_at=0.0)
    rig.put("v-at-work", queued_at=0.0)
    for name in ("first", "second"):
        rig.queued(name, queued_at=1.0)
        rig.put(f"v-{name}", queued_at=1.0)
    rig.ticks(1)
    for name in ("first", "v-first"):
        pauses(rig).ask(SCOPE, name)
        pauses(rig).resume(SCOPE, name)
    places, _, _ = service(rig).page(SCOPE)
    assert [place.job.id for place in places] == ["second", "first", "v-second", "v-first"]
    assert [place.n_ahead for place in places] == [0, 1, 0, 1]


def test_a_job_that_starts_at_once_is_not_told_to_wait(make: Any) -> None:
    rig = make()
    rig.queued("j")
    rig.ticks(3)
    assert rig.texts("j") == []


def test_a_job_is_told_once_what_it_waits_for_also_by_a_restarted_server(make: Any) -> None:
    rig = make()
    for number, name in enumerate(["at-work", "first", "second"]):
        rig.queued(name, queued_at=float(number))
    rig.ticks(4)
    told = [f"{ONLY_SLOT}; no job is before it"], [f"{ONLY_SLOT}; 1 job is before it"]
    assert (rig.texts("first"), rig.texts("second")) == told
    rig.restart()
    rig.ticks(1)
    assert (rig.texts("first"), rig.texts("second")) == told
    assert rig.job("first").waiting_for == "training_slots"


def test_a_changed_reason_is_told_and_so_is_the_next_wait(make: Any) -> None:
    rig = make(training_slots=2, training_slots_per_project=1, max_attempts=9)
    rig.queued("a0", queued_at=0.0)
    rig.queued("a1", queued_at=1.0)
    rig.ticks(2)
    limit = "Waiting: its project has 1 running job, its limit; no job is before it"
    assert rig.texts("a1") == [limit]
    others(rig, "b0", queued_at=2.0)
    others(rig, "b1", queued_at=3.0)
    rig.ticks(2)
    assert rig.texts("a1") == [limit], "its own limit holds it, whoever else runs"
    ends(rig, "a0")
    assert started(rig) == ["a0", "b0", "a1"]
    assert rig.job("a1").waiting_for is None
    rig.die(rig.machine.started[-1], Outcome(None, 9))
    rig.ticks(3)
    backoff = "Waiting: its last worker was lost, and it starts again in 1 s at the earliest; no job is before it"
    assert rig.texts("a1")[2:] == [backoff]
    rig.queued("a2", queued_at=0.5)
    rig.ticks(2)
    at_once(rig, "a1")
    rig.ticks(2)
    assert rig.texts("a1")[2:] == [backoff, limit]


def test_ten_times_as_many_as_are_told_at_one_look_are_each_told_once(make: Any) -> None:
    rig = make()
    n_jobs = 10 * reconcile.N_TOLD
    for number in range(n_jobs + 1):
        rig.queued(f"j{number:03}", queued_at=float(number))
    assert rig.scheduler.tick() == reconcile.DYING_S
    rig.ticks(12)
    assert rig.scheduler.tick() == reconcile.CALM_S
    for number in range(1, n_jobs + 1):
        (text,) = rig.texts(f"j{number:03}")
        assert text.startswith(ONLY_SLOT)


@pytest.mark.parametrize(
    "changes",
    [{"status": Status.CANCELLED}, {"attempt": 2}, {"status": Status.PAUSED, "desired": Desired.PAUSE}],
    ids=["cancelled", "started again", "paused"],
)
def test_a_job_that_went_on_meanwhile_is_told_nothing(make: Any, changes: dict[str, Any]) -> None:
    rig = make()
    before = rig.job(rig.queued("j", **changes))
    rig.scheduler._placement.tell(reconcile.Tell("j", 1, Reason.TRAINING_SLOTS))
    rig.scheduler._placement.tell(reconcile.Tell("none", 1, Reason.TRAINING_SLOTS))
    assert (rig.job("j"), rig.texts("j")) == (before, [])


def test_an_owner_sees_the_own_jobs_and_of_the_others_a_number(make: Any) -> None:
    rig = make(training_slots=2, training_slots_per_project=1)
    rig.queued("a0", queued_at=0.0)
    others(rig, "b0", queued_at=0.5)
    rig.ticks(1)
    rig.queued("a1", queued_at=2.0)
    others(rig, "b1", queued_at=1.0)
    queue = service(rig)
    places, more, load = queue.page(SCOPE)
    assert [(place.job.id, place.n_ahead, place.reason) for place in places] == [("a1", 0, Reason.PROJECT_LIMIT)]
    assert (more, load) == (False, Load(2, 1, 0, 0))
    assert queue.get(SCOPE, "a1") == places[0]
    assert queue.get(SCOPE, "a0").n_ahead is None
    for call in (lambda: queue.get(SCOPE, "b1"), lambda: queue.get(OTHER, "a1")):
        with pytest.raises(JobNotFound):
            call()
    with pytest.raises(InvalidRequest):
        queue.page(SCOPE, after="b1")
