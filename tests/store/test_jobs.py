"""Queries on jobs: what goes in comes out, lists are in order, a swap is won by one."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.job import Job, NewEvent
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.domain.states import Desired, Status
from tunesmith.store import events, jobs
from tunesmith.store.session import Database

OWN, OTHER = Project("proj_a", "org-a"), Project("proj_b", "org-b")
ALL = Everywhere("a test looks at everything")
Maker = Callable[..., Job]


def _add(db: Database, *made: Job) -> None:
    with db.begin() as tx:
        for job in made:
            jobs.add(tx, Project(job.project_id), job)


def test_a_job_comes_back_as_it_went_in(db: Database, new_job: Maker) -> None:
    job = new_job(
        validation_file="file-v",
        suffix="Üñ ☃ 'quoted\"",
        seed=2**31 - 1,
        integrations=[{"type": "wandb", "wandb": {"tags": ["ä"]}}],
        metadata={"k": "v", "schlüssel": "wert"},
        resolved={"n_epochs": 3},
        start_adapter="jobs/x/attempts/1/checkpoints/000004",
        handle={"pid": 1, "start_time": 2**40, "boot_id": "b"},
        error={"code": None, "param": "p", "message": "m"},
        counts={"tokens": 2**40},
        trained_tokens=2**40,
        result_files=["file-r"],
        estimated_finish=1.5,
        released_at=2.5,
    )
    with db.begin() as tx:
        stored = jobs.add(tx, OWN, job, [NewEvent("created", "Created")])
    assert stored == replace(job, next_seq=2)
    with db.read() as tx:
        assert jobs.get(tx, OWN, job.id) == stored
        assert [event.message for event in events.page(tx, OWN, job.id)[0]] == ["Created"]
        assert jobs.get(tx, OWN, "ftjob-none") is None


def test_a_job_of_another_project_cannot_be_added(db: Database, new_job: Maker) -> None:
    with pytest.raises(ValueError, match="is of proj_a, not of proj_b"), db.begin() as tx:
        jobs.add(tx, OTHER, new_job())


@pytest.mark.parametrize("change", [{"status": "dreaming"}, {"desired": "sleep"}])
def test_the_table_itself_refuses_unknown_states(db: Database, new_job: Maker, change: dict[str, str]) -> None:
    job = new_job()
    _add(db, job)
    ((column, value),) = change.items()
    with pytest.raises(IntegrityError), db.begin() as tx:
        tx.execute(text(f"UPDATE jobs SET {column} = '{value}'"))


def test_a_list_is_newest_first_whatever_the_page(db: Database, new_job: Maker) -> None:
    made = [new_job(created_at=float(at)) for at in (5, 1, 3, 3, 3, 9, 7)]
    _add(db, *made, new_job(OTHER, created_at=4.0))
    right = [job.id for job in sorted(made, key=lambda job: (job.created_at, job.id), reverse=True)]
    with db.read() as tx:
        whole, more = jobs.page(tx, OWN, limit=100)
        assert ([job.id for job in whole], more) == (right, False)
        for size in (1, 2, 3, 7):
            seen: list[str] = []
            after, more = None, True
            while more:
                page, more = jobs.page(tx, OWN, after=after, limit=size)
                seen += [job.id for job in page]
                after = page[-1].id
            assert seen == right
        assert len(jobs.page(tx, ALL, limit=100)[0]) == 8


def test_a_page_cannot_go_on_from_a_job_of_another_project(db: Database, new_job: Maker) -> None:
    foreign = new_job(OTHER)
    _add(db, foreign)
    for after in (foreign.id, "ftjob-none"):
        with pytest.raises(InvalidRequest, match=after) as raised, db.read() as tx:
            jobs.page(tx, OWN, after=after)
        assert raised.value.error_param == "after"


def test_metadata_filters_by_all_pairs_or_by_none(db: Database, new_job: Maker) -> None:
    both, one, none = new_job(metadata={"team": "a", "run": "1"}), new_job(metadata={"team": "a"}), new_job()
    empty, foreign = new_job(metadata={}), new_job(OTHER, metadata={"team": "a"})
    _add(db, both, one, none, empty, foreign)

    def found(metadata: Any) -> set[str]:
        with db.read() as tx:
            return {job.id for job in jobs.page(tx, OWN, limit=100, metadata=metadata)[0]}

    assert found({"team": "a"}) == {both.id, one.id}
    assert found({"team": "a", "run": "1"}) == {both.id}
    assert found({"team": "b"}) == set()
    assert found({"run": "a"}) == set()
    assert found("null") == {none.id}
    assert found({}) == found(None) == {both.id, one.id, none.id, empty.id}


def test_lists_by_metadata_are_paged_newest_first_whichever_pair_is_rarer(db: Database, new_job: Maker) -> None:
    made = [
        new_job(created_at=float(number // 2), metadata={"team": "a", "third": str(number % 3), "half": str(number % 2)})
        for number in range(24)
    ]
    _add(db, *made, new_job(OTHER, metadata={"team": "a", "third": "0", "half": "0"}))
    newest_first = sorted(made, key=lambda job: (job.created_at, job.id), reverse=True)
    for asked in (
        {"team": "a"},
        {"team": "a", "third": "1"},
        {"half": "0", "third": "2", "team": "a"},
        {"third": "0", "no": "x"},
    ):
        wanted = [job.id for job in newest_first if asked.items() <= (job.metadata or {}).items()]
        found: list[str] = []
        more = True
        while more:
            with db.read() as tx:
                page, more = jobs.page(tx, OWN, limit=3, after=found[-1] if found else None, metadata=asked)
            found += [job.id for job in page]
        assert found == wanted


def test_a_swap_changes_what_it_names_and_counts_versions(db: Database, new_job: Maker) -> None:
    job = new_job()
    _add(db, job)
    with db.begin() as tx:
        moved = jobs.swap(
            tx,
            OWN,
            job.id,
            expect_status={Status.VALIDATING_FILES},
            expect_attempt=0,
            expect_desired=Desired.RUN,
            status=Status.QUEUED,
            queued_at=5.0,
            counts={"n": 1},
        )
    assert moved == replace(job, status=Status.QUEUED, queued_at=5.0, counts={"n": 1}, version=2)
    with db.read() as tx:
        assert jobs.get(tx, OWN, job.id) == moved


@pytest.mark.parametrize(
    "expected",
    [
        {"expect_status": {Status.QUEUED}},
        {"expect_status": {Status.VALIDATING_FILES}, "expect_attempt": 1},
        {"expect_status": {Status.VALIDATING_FILES}, "expect_desired": Desired.PAUSE},
        {"expect_status": set()},
    ],
)
def test_a_swap_of_something_else_is_lost_and_changes_nothing(db: Database, new_job: Maker, expected: Any) -> None:
    job = new_job()
    _add(db, job)
    with db.begin() as tx:
        assert jobs.swap(tx, OWN, job.id, **expected, model="x") is None
        assert jobs.swap(tx, OTHER, job.id, expect_status=set(Status), model="x") is None
        assert jobs.get(tx, OWN, job.id) == job


def test_no_swap_leaves_a_terminal_status_or_takes_a_way_that_is_none(db: Database, new_job: Maker) -> None:
    done, new = new_job(status=Status.SUCCEEDED), new_job()
    _add(db, done, new)
    with db.begin() as tx:
        for target in Status:
            if target is not Status.SUCCEEDED:
                assert jobs.swap(tx, OWN, done.id, expect_status=set(Status), status=target) is None
        assert jobs.swap(tx, OWN, new.id, expect_status=set(Status), status=Status.SUCCEEDED) is None
        assert jobs.swap(tx, OWN, new.id, expect_status=set(Status), status=Status.RUNNING) is None
        still = jobs.swap(tx, OWN, done.id, expect_status={Status.SUCCEEDED}, released_at=9.0)
        assert still is not None
        assert still.released_at == 9.0


def test_a_fence_raises_the_attempt(db: Database, new_job: Maker) -> None:
    job = new_job(attempt=4)
    _add(db, job)
    with db.begin() as tx:
        moved = jobs.swap(tx, OWN, job.id, expect_status=set(Status), fence=True, status=Status.CANCELLED)
        assert moved is not None
        assert moved.attempt == 5
        assert jobs.swap(tx, OWN, job.id, expect_status=set(Status), expect_attempt=4, counts={}) is None


def test_of_many_swaps_at_once_one_wins(db: Database, new_job: Maker) -> None:
    job = new_job()
    _add(db, job)
    won: list[int] = []
    together = threading.Barrier(8)

    def take(number: int) -> None:
        together.wait(30)
        with db.begin() as tx:
            if jobs.swap(tx, OWN, job.id, expect_status={job.status}, expect_attempt=0, attempt=1, seed=number):
                won.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with db.read() as tx:
        stored = jobs.get(tx, OWN, job.id)
    assert stored is not None
    assert won == [stored.seed]


def test_unfinished_are_oldest_first(db: Database, new_job: Maker) -> None:
    late, early, done = new_job(created_at=9.0), new_job(created_at=1.0), new_job(status=Status.FAILED)
    _add(db, late, early, done, new_job(OTHER))
    with db.read() as tx:
        assert [job.id for job in jobs.unfinished(tx, OWN)] == [early.id, late.id]


def test_occupied_are_those_with_an_attempt_that_is_not_known_to_be_gone(db: Database, new_job: Maker) -> None:
    never, gone = new_job(), new_job(attempt=1, released_at=3.0)
    live, dying = new_job(attempt=1, created_at=1.0), new_job(attempt=2, status=Status.CANCELLED, created_at=2.0)
    _add(db, never, gone, live, dying)
    with db.read() as tx:
        assert jobs.occupied(tx, OWN) == [live, dying]


def test_occupied_rows_are_read_again_when_their_version_has_changed(db: Database, new_job: Maker) -> None:
    first, second = new_job(attempt=1, created_at=1.0), new_job(attempt=1, created_at=2.0)
    _add(db, first, second)
    with db.read() as tx:
        known = {job.id: job for job in jobs.occupied(tx, ALL)}
    with db.begin() as tx:
        changed = jobs.swap(tx, ALL, second.id, expect_status=set(Status), counts={"n": 1})
    with db.read() as tx:
        again = jobs.occupied(tx, ALL, known)
    assert again == [first, changed]
    assert again[0] is known[first.id]


def test_waiting_are_first_in_first_out_and_only_those_that_may_start(db: Database, new_job: Maker) -> None:
    queued = {"status": Status.QUEUED}
    second = new_job(**queued, queued_at=20.0, created_at=1.0)
    first = new_job(**queued, queued_at=10.0, created_at=2.0)
    requeued = new_job(**queued, queued_at=30.0, attempt=2, released_at=35.0)
    set_back = new_job(**queued, queued_at=31.0, not_before=100.1)  # by a clock that was ahead
    _add(
        db,
        second,
        first,
        requeued,
        set_back,
        new_job(**queued, queued_at=1.0, attempt=1),
        new_job(**queued, queued_at=1.0, not_before=41.0),
        new_job(**queued, queued_at=1.0, not_before=100.0),
        new_job(**queued, queued_at=1.0, desired=Desired.PAUSE),
        new_job(created_at=0.5),
    )
    with db.read() as tx:
        assert jobs.waiting(tx, OWN, Status.QUEUED, now=40.0, limit=10) == [first, second, requeued, set_back]
        assert jobs.waiting(tx, OWN, Status.QUEUED, now=40.0, limit=1) == [first]
        assert len(jobs.waiting(tx, OWN, Status.VALIDATING_FILES, now=40.0, limit=10)) == 1


def test_using_file_finds_unfinished_jobs_by_either_file(db: Database, new_job: Maker) -> None:
    training, validating = new_job(training_file="file-x", created_at=1.0), new_job(validation_file="file-x", created_at=2.0)
    _add(db, training, validating, new_job(), new_job(training_file="file-x", status=Status.CANCELLED))
    with db.read() as tx:
        assert [job.id for job in jobs.using_file(tx, OWN, "file-x")] == [training.id, validating.id]
        assert jobs.using_file(tx, OTHER, "file-x") == []


def test_a_list_is_read_from_its_index(db: Database, new_job: Maker, backend: str) -> None:
    if backend != "sqlite":
        pytest.skip("a planner may read a small table whole")
    job = new_job()
    _add(db, job)
    seen: list[str] = []
    with db.read() as tx:
        raw = tx.connection.connection.driver_connection
        raw.set_trace_callback(seen.append)  # type: ignore[union-attr]
        jobs.page(tx, OWN, after=job.id)
        raw.set_trace_callback(None)  # type: ignore[union-attr]
        plan = " ".join(row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {seen[-1]}"))  # type: ignore[union-attr]
    assert "USING INDEX ix_jobs_project_id_created_at_id (project_id=? AND (created_at,id)<(?,?))" in plan
    assert "TEMP B-TREE" not in plan


def test_a_locked_job_is_changed_by_nobody_else_until_the_end_of_the_transaction(db: Database, new_job: Maker) -> None:
    job = new_job(status=Status.RUNNING)
    _add(db, job)
    order: list[str] = []
    about_to = threading.Event()

    def cancel() -> None:
        about_to.set()
        with db.begin(urgent=True) as tx:
            jobs.swap(tx, OWN, job.id, expect_status={Status.RUNNING}, fence=True, status=Status.CANCELLED)
            order.append("cancelled")

    with db.begin() as tx:
        assert jobs.get(tx, OWN, job.id, lock=True) is not None
        canceller = threading.Thread(target=cancel)
        canceller.start()
        assert about_to.wait(60)
        canceller.join(0.2)
        order.append("locked work done")
    canceller.join(60)
    assert order == ["locked work done", "cancelled"]


def test_starting_from_finds_unfinished_jobs_by_their_adapter(db: Database, new_job: Maker) -> None:
    tuning = new_job(start_adapter="jobs/a/1")
    done = new_job(start_adapter="jobs/a/1", status=Status.SUCCEEDED)
    _add(db, tuning, done, new_job(start_adapter="jobs/a/2"), new_job())
    with db.read() as tx:
        assert [job.id for job in jobs.starting_from(tx, OWN, "jobs/a/1")] == [tuning.id]
        assert jobs.starting_from(tx, OTHER, "jobs/a/1") == []
