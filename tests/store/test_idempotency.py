"""Kept answers on both databases: by key, by what was asked, for a day."""

from dataclasses import replace
from threading import Barrier, Thread

import pytest
from sqlalchemy.exc import IntegrityError

from tunesmith.domain.idempotency import Record
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.store import idempotency
from tunesmith.store.session import Database

OWN, OTHER = Project("proj_a", "org-a"), Project("proj_b", "org-b")
ALL = Everywhere("the test looks at everything")
BODY = bytes(range(256))


def record(name: str, now: float, /, **changes: object) -> Record:
    kept = Record(name, "proj_a", now, now + 60.0, None, "f", 0, 200, {"content-type": "application/json"}, BODY)
    return replace(kept, **changes)  # type: ignore[arg-type]


def add(db: Database, *records: Record) -> None:
    with db.begin() as tx:
        for each in records:
            idempotency.add(tx, ALL, each)


def claim(db: Database, n_retries: int, since: float = 0.0, scope: Project = OWN) -> str | None:
    with db.begin() as tx:
        found = idempotency.claim(tx, scope, "f", n_retries=n_retries, since=since)
    return None if found is None else found.id


def test_a_record_is_found_by_its_key_as_it_was(db: Database, watch) -> None:
    kept = record("a", watch.now(), key="k")
    add(db, kept, record("b", watch.now(), key="k", project_id="proj_b"))
    with db.read() as tx:
        assert idempotency.get(tx, OWN, "k") == kept
        assert idempotency.get(tx, OTHER, "k").id == "b"  # type: ignore[union-attr]
        assert idempotency.get(tx, OWN, "K") is None


def test_a_key_stands_for_one_request_until_it_expires(db: Database, watch) -> None:
    add(db, record("a", watch.now(), key="k"))
    with pytest.raises(IntegrityError):
        add(db, record("b", watch.now(), key="k"))
    add(db, record("old", watch.now(), key="j", expires_at=watch.now() - 0.1))
    with db.read() as tx:
        assert idempotency.get(tx, OWN, "j") is None
    add(db, record("new", watch.now(), key="j"))
    with db.read() as tx:
        assert idempotency.get(tx, OWN, "j").id == "new"  # type: ignore[union-attr]


def test_a_claim_takes_the_newest_that_was_sent_less_often(db: Database, watch) -> None:
    now = watch.now()
    add(db, record("old", now - 30.0), record("new", now), record("keyed", now + 1.0, key="k"))
    add(db, record("other", now + 1.0, fingerprint="g"), record("theirs", now + 1.0, project_id="proj_b"))
    assert claim(db, 1, since=now + 5.0) is None
    assert claim(db, 1) == "new"
    assert claim(db, 1) == "old"
    assert claim(db, 1) is None
    assert claim(db, 2) == "new"
    assert claim(db, 1, scope=OTHER) == "theirs"


def test_two_claims_at_once_get_two_records(db: Database, watch) -> None:
    add(db, *(record(f"r{n}", watch.now()) for n in range(4)))
    together, claimed = Barrier(4), []

    def take() -> None:
        together.wait()
        claimed.append(claim(db, 1))

    threads = [Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(claimed)
    assert len(set(claimed)) == 4


def test_the_expired_are_swept_oldest_first(db: Database, watch) -> None:
    now = watch.now()
    add(db, *(record(f"r{n}", now, expires_at=now - n) for n in range(3)), record("fresh", now))
    for swept in (["r2", "r1"], ["r0"], []):
        with db.begin() as tx:
            assert sorted(idempotency.sweep(tx, ALL, limit=2), reverse=True) == swept
