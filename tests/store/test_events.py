"""Events: numbered from one without a gap, each idempotency key once, newest first."""

import threading
from collections.abc import Callable

import pytest

from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.job import Job, NewEvent
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.store import events, jobs
from tunesmith.store.session import Database

OWN, OTHER = Project("proj_a", "org-a"), Project("proj_b", "org-b")


@pytest.fixture
def job(db: Database, new_job: Callable[..., Job]) -> Job:
    made = new_job()
    with db.begin() as tx:
        return jobs.add(tx, OWN, made)


def _numbers(db: Database, job: Job) -> list[int]:
    with db.read() as tx:
        return [event.seq for event in events.page(tx, OWN, job.id, limit=1000)[0]]


def test_an_event_comes_back_as_it_went_in(db: Database, job: Job) -> None:
    new = NewEvent("s1", "Step 1/2: training loss=0.50", type="metrics", data={"train_loss": 0.5, "é": [1]}, created_at=3.5)
    with db.begin() as tx:
        (stored,) = events.append(tx, OWN, job.id, 4, [new])
        (plain,) = events.append(tx, OWN, job.id, 4, [NewEvent("x", "y", level="warn")])
    assert (stored.seq, stored.attempt, stored.created_at, stored.data) == (1, 4, 3.5, {"train_loss": 0.5, "é": [1]})
    assert (plain.seq, plain.level, plain.created_at, plain.data) == (2, "warn", 1_700_000_000.0, None)
    with db.read() as tx:
        assert events.page(tx, OWN, job.id) == ([plain, stored], False)


def test_a_known_key_is_skipped_and_leaves_no_gap(db: Database, job: Job) -> None:
    with db.begin() as tx:
        events.append(tx, OWN, job.id, 1, [NewEvent("a", "first"), NewEvent("b", "second")])
        again = events.append(tx, OWN, job.id, 2, [NewEvent("b", "late"), NewEvent("c", "third"), NewEvent("c", "twice")])
        assert events.append(tx, OWN, job.id, 2, [NewEvent("a", "late"), NewEvent("c", "late")]) == []
        assert events.append(tx, OWN, job.id, 2, []) == []
    assert [(event.seq, event.message) for event in again] == [(3, "third")]
    assert _numbers(db, job) == [3, 2, 1]


def test_nothing_is_appended_to_a_job_that_the_scope_does_not_have(db: Database, job: Job) -> None:
    with db.begin() as tx:
        assert events.append(tx, OTHER, job.id, 1, [NewEvent("a", "x")]) == []
        assert events.append(tx, OWN, "ftjob-none", 1, [NewEvent("a", "x")]) == []
    assert _numbers(db, job) == []


def test_a_rolled_back_batch_leaves_no_gap(db: Database, job: Job) -> None:
    def append_and_break() -> None:
        with db.begin() as tx:
            events.append(tx, OWN, job.id, 1, [NewEvent("a", "x"), NewEvent("b", "x")])
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        append_and_break()
    with db.begin() as tx:
        events.append(tx, OWN, job.id, 1, [NewEvent("b", "x")])
    assert _numbers(db, job) == [1]


def test_many_who_append_the_same_and_their_own_at_once(db: Database, job: Job) -> None:
    together = threading.Barrier(6)

    def append(number: int) -> None:
        together.wait(30)
        for step in range(5):
            with db.begin() as tx:
                events.append(tx, OWN, job.id, 1, [NewEvent(f"s{step}", "shared"), NewEvent(f"{number}-{step}", "own")])

    threads = [threading.Thread(target=append, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert _numbers(db, job) == list(range(35, 0, -1))


def test_pages_go_on_from_an_event_of_the_same_job(db: Database, job: Job, new_job: Callable[..., Job]) -> None:
    with db.begin() as tx:
        stored = events.append(tx, OWN, job.id, 1, [NewEvent(str(n), str(n)) for n in range(7)])
        other = jobs.add(tx, OWN, new_job(), [NewEvent("0", "another's")])
        foreign = events.page(tx, OWN, other.id)[0][0]
    with db.read() as tx:
        first, more = events.page(tx, OWN, job.id, limit=3)
        rest, no_more = events.page(tx, OWN, job.id, after=first[-1].id, limit=10)
        assert first + rest == stored[::-1]
        assert (more, no_more) == (True, False)
        assert events.page(tx, OTHER, job.id) == ([], False)
        assert len(events.page(tx, Everywhere("test"), job.id)[0]) == 7
        with pytest.raises(InvalidRequest, match=foreign.id) as raised:
            events.page(tx, OWN, job.id, after=foreign.id)
    assert raised.value.error_param == "after"
