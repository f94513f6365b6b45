"""Transactions: whole or not at all, cancel before the rest, faults told as a client may read them."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tunesmith.core.errors import StorageFull, Unavailable
from tunesmith.core.ids import Ids
from tunesmith.domain.job import Job
from tunesmith.domain.scope import Project
from tunesmith.store import jobs
from tunesmith.store.session import Database, DatabaseInUse, Lanes

OWN = Project("proj_a", "org-a")
PATIENCE_S = 30


def test_a_transaction_that_raises_leaves_nothing(db: Database, new_job: Callable[..., Job]) -> None:
    job = new_job()

    def add_and_break() -> None:
        with db.begin() as tx:
            jobs.add(tx, OWN, job)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        add_and_break()
    with db.read() as tx:
        assert jobs.get(tx, OWN, job.id) is None


def test_a_failpoint_at_the_commit_leaves_nothing(
    db: Database, new_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job()
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "store.commit=raise")
    with pytest.raises(OSError, match="No space left"), db.begin() as tx:
        jobs.add(tx, OWN, job)
    monkeypatch.delenv("TUNESMITH_FAILPOINTS")
    with db.read() as tx:
        assert jobs.get(tx, OWN, job.id) is None
    with db.begin() as tx:  # and the turn was given back
        jobs.add(tx, OWN, job)


def test_a_reader_sees_what_is_committed_and_does_not_wait(db: Database, new_job: Callable[..., Job]) -> None:
    job = new_job()
    with db.begin() as writing:
        jobs.add(writing, OWN, job)
        with db.read() as reading:
            assert jobs.get(reading, OWN, job.id) is None
    with db.read() as reading:
        assert jobs.get(reading, OWN, job.id) is not None


def test_what_is_written_survives_closing(url: str, watch: object, new_job: Callable[..., Job]) -> None:
    job = new_job()
    first = Database(url, clock=watch, ids=Ids())  # type: ignore[arg-type]
    first.migrate()
    with first.begin() as tx:
        stored = jobs.add(tx, OWN, job)
    first.close()
    second = Database(url, clock=watch, ids=Ids())  # type: ignore[arg-type]
    second.migrate()
    with second.read() as tx:
        assert jobs.get(tx, OWN, job.id) == stored
    second.close()


def test_sqlite_is_set_up_to_lose_nothing(tmp_path: Path, watch: object) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}", clock=watch, ids=Ids())  # type: ignore[arg-type]
    database.migrate()
    with database.begin() as tx:
        found = [tx.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous", "foreign_keys")]
        assert tx.execute(text("PRAGMA busy_timeout")).scalar() == 30_000
    database.close()
    assert found == ["wal", 2, 1]


def test_who_is_urgent_goes_before_all_who_wait() -> None:
    lanes = Lanes()
    order: list[str] = []
    waiting: list[threading.Thread] = []

    def take(name: str, *, urgent: bool) -> None:
        with lanes.hold(urgent=urgent):
            order.append(name)

    asked = [("a", False), ("b", False), ("cancel 1", True), ("c", False), ("cancel 2", True)]
    with lanes.hold(urgent=False):
        for n_asked, (name, urgent) in enumerate(asked, start=1):
            thread = threading.Thread(target=take, args=(name,), kwargs={"urgent": urgent})
            thread.start()
            waiting.append(thread)
            while len(lanes._urgent) + len(lanes._ordinary) < n_asked:
                thread.join(0.001)
    for thread in waiting:
        thread.join(PATIENCE_S)
    assert order == ["cancel 1", "cancel 2", "a", "b", "c"]


def test_writers_on_sqlite_wait_their_turn_and_all_get_it(db: Database, new_job: Callable[..., Job]) -> None:
    made = [new_job() for _ in range(24)]

    def write(job: Job) -> None:
        with db.begin() as tx:
            jobs.add(tx, OWN, job)

    threads = [threading.Thread(target=write, args=(job,)) for job in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    with db.read() as tx:
        assert {job.id for job in jobs.unfinished(tx, OWN)} == {job.id for job in made}


def test_a_database_that_cannot_be_reached_is_unavailable(tmp_path: Path, watch: object) -> None:
    for url in (f"sqlite:///{tmp_path}/absent/x.db", f"postgresql://postgres@/x?host={tmp_path}"):
        database = Database(url, clock=watch, ids=Ids())  # type: ignore[arg-type]
        with pytest.raises(Unavailable, match="The database cannot serve this now"):
            database.migrate()
        database.close()


def test_a_full_disk_is_told_as_one_and_the_next_write_works_again(
    tmp_path: Path, watch: object, new_job: Callable[..., Job]
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}", clock=watch, ids=Ids())  # type: ignore[arg-type]
    database.migrate()
    with database.begin() as tx:
        n_pages = tx.execute(text("PRAGMA page_count")).scalar()
        tx.execute(text(f"PRAGMA max_page_count={n_pages}"))
    job = new_job(model="m" * 100_000)
    with pytest.raises(StorageFull, match="Free space there"), database.begin() as tx:
        jobs.add(tx, OWN, job)
    with database.begin() as tx:
        tx.execute(text("PRAGMA max_page_count=1000000"))
        assert jobs.add(tx, OWN, job).id == job.id
    database.close()


def test_an_error_of_the_driver_says_what_it_was(db: Database) -> None:
    with pytest.raises(Unavailable, match="it broke") as raised, db.begin():
        raise OperationalError("SELECT 1", {}, sqlite3.OperationalError("it broke"))
    assert raised.value.status == 503


@pytest.mark.pg
def test_a_second_server_on_a_postgresql_is_refused_until_the_first_lets_go(migrated_cluster: Any, watch: Any) -> None:
    first, second = (Database(migrated_cluster.url("tunesmith"), clock=watch, ids=Ids()) for _ in range(2))
    first.hold()
    with pytest.raises(DatabaseInUse, match="another Tunesmith server"):
        second.hold()
    first.close()
    second.hold()
    second.close()


def test_a_sqlite_is_held_by_its_folders_lock(tmp_path: Path, watch: Any) -> None:
    first, second = (Database(f"sqlite:///{tmp_path / 'x.db'}", clock=watch, ids=Ids()) for _ in range(2))
    first.hold()
    second.hold()
    first.close()
    second.close()
