"""Queries on the queue: first come, first started, no project hidden by another, and numbers of all the others' jobs."""

from collections.abc import Callable
from typing import Any

import pytest

from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.job import Job
from tunesmith.domain.queue import Limits, Load, waits
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.domain.states import Desired, Status
from tunesmith.store import jobs, queue
from tunesmith.store.session import Database

OWN, OTHER, THIRD = Project("proj_a", "org-a"), Project("proj_b", "org-b"), Project("proj_c", "org-c")
ALL = Everywhere("a test looks at everything")
NOW = 100.0
QUEUED: dict[str, Any] = {"status": Status.QUEUED, "attempt": 1, "released_at": 1.0}
RUNNING: dict[str, Any] = {"status": Status.RUNNING, "attempt": 2, "started_at": 5.0, "token_sha256": "t"}
Maker = Callable[..., Job]
Put = Callable[..., str]


@pytest.fixture
def put(db: Database, new_job: Maker) -> Put:
    """Return a function that stores a job under a name of the test's choice."""

    def put(name: str, scope: Project = OWN, **fields: Any) -> str:
        with db.begin() as tx:
            return jobs.add(tx, scope, new_job(scope, id=name, created_at=1.0, **fields)).id

    return put


def first(db: Database, *, limit: int, room: Callable[[str], int] | None = None) -> list[str]:
    with db.read() as tx:
        return [job.id for job in jobs.waiting(tx, ALL, Status.QUEUED, now=NOW, limit=limit, room=room)]


def line(db: Database, scope: Project, per_project: int | None = None, **page: Any) -> dict[str, int]:
    """Return the scope's waiting jobs in order with the number before each, after asking for each by itself as well."""
    with db.read() as tx:
        found, _ = queue.page(tx, scope, now=NOW, limits=Limits(1, 1, 3, per_project), **page)
        for job, n_ahead in found:
            assert waits(job)
            assert queue.place(tx, scope, job.id, now=NOW, limits=Limits(1, 1, 3, per_project)) == (job, n_ahead)
    return {job.id: n_ahead for job, n_ahead in found}


def test_a_long_backlog_hides_no_other_projects_first_job(db: Database, put: Put) -> None:
    for number in range(30):
        put(f"a{number:02}", **QUEUED, queued_at=float(number))
        put(f"b{number:02}", OTHER, **QUEUED, queued_at=30.0 + number)
    put("c", THIRD, **QUEUED, queued_at=90.0)
    rooms = {"proj_a": 2, "proj_b": 1, "proj_c": 5}
    assert first(db, limit=6, room=rooms.__getitem__) == ["a00", "a01", "b00", "c"]
    assert first(db, limit=3, room=rooms.__getitem__) == ["a00", "a01", "b00"]
    assert first(db, limit=3) == ["a00", "a01", "a02"]
    assert first(db, limit=0) == []
    assert first(db, limit=99, room=lambda _: 99) == first(db, limit=99)


def test_equal_times_are_told_apart(db: Database, put: Put) -> None:
    for number in range(5):
        put(f"a{number}", **QUEUED, queued_at=3.0)
    put("b", OTHER, **QUEUED, queued_at=3.0)
    assert first(db, limit=2, room=lambda _: 1) == ["a0", "b"]


def test_those_whose_events_do_not_tell_yet_why_they_wait(db: Database, put: Put) -> None:
    put("second", OTHER, **QUEUED, queued_at=2.0)
    put("first", **QUEUED, queued_at=1.0)
    put("later", **QUEUED, queued_at=3.0, not_before=NOW + 1)
    put("told", **QUEUED, queued_at=1.0, waiting_for="training_slots")
    put("leaving", **{**QUEUED, "released_at": None}, queued_at=1.0)
    put("validating", queued_at=1.0)
    put("runs", **RUNNING, queued_at=1.0)
    with db.read() as tx:
        assert [job.id for job in jobs.untold(tx, ALL, limit=9)] == ["first", "second", "later"]
        assert [job.id for job in jobs.untold(tx, ALL, limit=1)] == ["first"]
        assert [job.id for job in jobs.untold(tx, OTHER, limit=9)] == ["second"]


def test_others_jobs_are_counted_and_not_shown(db: Database, put: Put) -> None:
    put("a2", **QUEUED, queued_at=4.0)
    put("b1", OTHER, **QUEUED, queued_at=2.0)
    put("a1", **QUEUED, queued_at=1.0)
    put("b2", OTHER, **QUEUED, queued_at=3.0)
    assert line(db, OWN) == {"a1": 0, "a2": 3}
    assert line(db, OTHER) == {"b1": 1, "b2": 2}
    assert line(db, THIRD) == {}
    with db.read() as tx:
        assert queue.place(tx, OWN, "b1", now=NOW, limits=Limits(1, 1, 3)) is None


def test_who_is_in_backoff_is_passed_over_and_keeps_its_place(db: Database, put: Put) -> None:
    put("lost", **QUEUED, queued_at=1.0, not_before=NOW + 1)
    put("next", **QUEUED, queued_at=2.0)
    put("back", **QUEUED, queued_at=1.5, not_before=NOW)
    assert line(db, OWN) == {"lost": 0, "back": 0, "next": 1}


def test_jobs_of_a_project_at_its_limit_are_before_its_own_jobs_only(db: Database, put: Put) -> None:
    put("runs", OTHER, **RUNNING)
    put("b1", OTHER, **QUEUED, queued_at=1.0)
    put("b2", OTHER, **QUEUED, queued_at=2.0)
    put("a1", **QUEUED, queued_at=3.0)
    put("b3", OTHER, **QUEUED, queued_at=4.0)
    assert line(db, OWN, 1) == {"a1": 0}
    assert line(db, OTHER, 1) == {"b1": 0, "b2": 1, "b3": 3}
    assert line(db, OWN, 2) == line(db, OWN) == {"a1": 2}


def test_trainings_and_validations_are_two_queues(db: Database, put: Put) -> None:
    put("runs", OTHER, **RUNNING)
    put("v-other", OTHER, queued_at=0.5)
    put("v1", queued_at=1.0)
    put("q1", **QUEUED, queued_at=5.0)
    put("at-work", attempt=1, token_sha256="t", queued_at=0.1)
    put("fenced", attempt=2, queued_at=2.0)
    put("paused", status=Status.PAUSED, desired=Desired.PAUSE, queued_at=0.1)
    put("v2", attempt=1, released_at=3.0, queued_at=3.0)
    assert line(db, OWN, 1) == {"q1": 0, "v1": 1, "fenced": 2, "v2": 3}


def test_pages_follow_one_another_also_past_a_job_that_waits_no_more(db: Database, put: Put) -> None:
    for number in range(3):
        put(f"q{number}", **QUEUED, queued_at=float(number))
        put(f"v{number}", queued_at=float(number))
    assert line(db, OWN, limit=2) == {"q0": 0, "q1": 1}
    assert line(db, OWN, after="q1", limit=3) == {"q2": 2, "v0": 0, "v1": 1}
    with db.begin() as tx:
        jobs.swap(tx, OWN, "q1", expect_status={Status.QUEUED}, status=Status.RUNNING, attempt=2, released_at=None)
        _, more = queue.page(tx, OWN, now=NOW, limits=Limits(1, 1, 3), limit=5)
        assert not more
        _, more = queue.page(tx, OWN, now=NOW, limits=Limits(1, 1, 3), limit=4)
        assert more
        with pytest.raises(InvalidRequest, match="no object with id 'q1'"):
            queue.page(tx, OTHER, now=NOW, limits=Limits(1, 1, 3), after="q1")


def test_the_load_is_counted_by_kind_for_all_and_for_the_project(db: Database, put: Put) -> None:
    with db.read() as tx:
        assert queue.load(tx, OWN) == Load(0, 0, 0, 0)
    put("a", **RUNNING)
    put("leaving", status=Status.CANCELLED, attempt=3, started_at=5.0)
    put("b", OTHER, **RUNNING)
    put("gone", **{**RUNNING, "status": Status.SUCCEEDED}, released_at=6.0)
    put("v", OTHER, attempt=1, token_sha256="t")
    put("new")
    put("queued", **QUEUED)
    with db.read() as tx:
        assert queue.load(tx, OWN) == Load(training=3, training_of_project=2, validating=1, validating_of_project=0)
        assert queue.load(tx, OTHER) == Load(training=3, training_of_project=1, validating=1, validating_of_project=1)
