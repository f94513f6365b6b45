"""Stored chat completions on both databases: in pages, by metadata, described anew, deleted with it."""

from dataclasses import replace

import pytest
from sqlalchemy import func, select

from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.completion import Completion
from tunesmith.domain.scope import Project
from tunesmith.store import completions
from tunesmith.store.session import Database
from tunesmith.store.tables import completion_metadata

OWN, OTHER = Project("proj_a", "org-a"), Project("proj_b", "org-b")


def completion(name: str, at: float = 1.0, /, **changes: object) -> Completion:
    kept = Completion(name, "proj_a", at, "nano", {}, {"id": name}, [{"role": "user", "content": "a\x00b"}])
    return replace(kept, **changes)  # type: ignore[arg-type]


def add(db: Database, *rows: Completion) -> None:
    with db.begin() as tx:
        for row in rows:
            completions.add(tx, Project(row.project_id), row)


def ids(db: Database, scope: Project = OWN, **query: object) -> list[str]:
    with db.read() as tx:
        found, _ = completions.page(tx, scope, **query)  # type: ignore[arg-type]
    return [each.id for each in found]


def n_pairs(db: Database) -> int:
    with db.read() as tx:
        return tx.execute(select(func.count()).select_from(completion_metadata)).scalar_one()


def test_a_completion_comes_back_as_it_was(db: Database) -> None:
    kept = completion("a", metadata={"k": "v"})
    add(db, kept)
    with db.read() as tx:
        assert completions.get(tx, OWN, "a") == kept
        assert completions.get(tx, OTHER, "a") is None


def test_pages_go_by_time_in_both_directions(db: Database) -> None:
    add(db, *(completion(name, at) for name, at in (("c", 2.0), ("a", 2.0), ("b", 1.0))))
    add(db, completion("theirs", 1.5, project_id="proj_b"))
    assert ids(db) == ["b", "a", "c"]
    assert ids(db, order="desc") == ["c", "a", "b"]
    assert ids(db, after="a") == ["c"]
    assert ids(db, order="desc", after="a") == ["b"]
    with db.read() as tx:
        assert completions.page(tx, OWN, limit=2)[1]
        assert not completions.page(tx, OWN, limit=3)[1]
        with pytest.raises(InvalidRequest, match="theirs"):
            completions.page(tx, OWN, after="theirs")


def test_the_filters_ask_for_a_model_and_for_every_pair(db: Database) -> None:
    both = {"k": "v", 'it\'s "odd" [1]': "ü"}
    add(
        db,
        completion("both", metadata=both),
        completion("one", metadata={"k": "v"}),
        completion("empty", metadata={"k": ""}),
    )
    add(db, completion("tuned", model="ft:nano", metadata=both))
    assert ids(db, metadata={"k": "v"}) == ["both", "one", "tuned"]
    assert ids(db, metadata=both, model="nano") == ["both"]
    assert ids(db, metadata={"k": ""}) == ["empty"]
    assert ids(db, metadata={"v": "k"}) == []
    assert ids(db, OTHER, metadata={"k": "v"}) == []


def test_other_metadata_takes_the_place_of_the_old(db: Database) -> None:
    add(db, completion("a", metadata={"k": "v", "gone": "x"}))
    with db.begin() as tx:
        described = completions.describe(tx, OWN, "a", {"k": "w", "new": "y"})
        assert completions.describe(tx, OTHER, "a", {}) is None
    assert described == completion("a", metadata={"k": "w", "new": "y"})
    assert ids(db, metadata={"gone": "x"}) == ids(db, metadata={"k": "v"}) == []
    assert ids(db, metadata={"k": "w", "new": "y"}) == ["a"]


def test_a_deleted_completion_leaves_nothing(db: Database) -> None:
    add(db, completion("a", metadata={"k": "v"}), completion("b", metadata={"k": "v"}))
    with db.begin() as tx:
        assert not completions.delete_one(tx, OTHER, "a")
        assert completions.delete_one(tx, OWN, "a")
        assert not completions.delete_one(tx, OWN, "a")
    assert ids(db) == ["b"]
    assert n_pairs(db) == 1
