"""Stored responses on both databases: alone, in chains, as long as they live."""

from dataclasses import replace

import pytest

from tunesmith.domain.response import StoredResponse
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.store import responses
from tunesmith.store.session import Database

OWN, OTHER = Project("proj_a", "org-a"), Project("proj_b", "org-b")
ALL = Everywhere("the test looks at everything")


def response(name: str, previous: str | None = None, /, **changes: object) -> StoredResponse:
    kept = StoredResponse(name, "proj_a", 1.0, None, previous, [{"id": "m", "text": "a\x00"}], {"output": [{"id": name}]})
    return replace(kept, **changes)  # type: ignore[arg-type]


def add(db: Database, *rows: StoredResponse) -> None:
    with db.begin() as tx:
        for row in rows:
            responses.add(tx, Project(row.project_id), row)


def chain(db: Database, name: str, scope: Project = OWN) -> list[str]:
    with db.read() as tx:
        return [each.id for each in responses.chain(tx, scope, name)]


def test_a_response_comes_back_as_it_was_to_its_project(db: Database) -> None:
    add(db, response("a"))
    with db.read() as tx:
        assert responses.get(tx, OWN, "a") == response("a")
        assert responses.get(tx, OTHER, "a") is None
    assert response("a").items == [{"id": "m", "text": "a\x00"}, {"id": "a"}]


def test_a_chain_goes_back_along_one_branch(db: Database) -> None:
    add(db, response("z"), response("b", "z"), response("branch", "b"), response("a", "b"), response("c", "a"))
    assert chain(db, "c") == ["z", "b", "a", "c"]
    assert chain(db, "branch") == ["z", "b", "branch"]
    assert chain(db, "c", OTHER) == chain(db, "none") == []


def test_a_chain_ends_where_a_response_is_gone(db: Database, watch) -> None:
    add(db, response("a"), response("b", "a"), response("c", "b"), response("theirs", project_id="proj_b"))
    add(db, response("on theirs", "theirs"), response("old", expires_at=watch.now()), response("on old", "old"))
    with db.begin() as tx:
        assert not responses.delete_one(tx, OTHER, "a")
        assert responses.delete_one(tx, OWN, "a")
        assert not responses.delete_one(tx, OWN, "a")
        assert not responses.delete_one(tx, OWN, "old")
    assert chain(db, "c") == ["b", "c"]
    assert chain(db, "on theirs") == ["on theirs"]
    assert chain(db, "on old") == ["on old"]


def test_what_a_response_goes_on_from_lives_as_long(db: Database, watch) -> None:
    add(db, response("a", expires_at=watch.now() + 1), response("b", "a", expires_at=watch.now() + 9))
    with db.begin() as tx:
        responses.keep_until(tx, OTHER, ["a"], watch.now() + 9)
        responses.keep_until(tx, OWN, ["b"], watch.now() + 99)
    watch.at += 2
    assert chain(db, "b") == ["b"]
    watch.at -= 2
    with db.begin() as tx:
        responses.keep_until(tx, OWN, ["a"], None)
    watch.at += 98
    assert chain(db, "b") == ["a", "b"]


@pytest.mark.parametrize("gone", [0.0, -5.0])
def test_the_expired_are_swept(db: Database, watch, gone: float) -> None:
    at = watch.now()
    add(db, response("a", expires_at=at + gone), response("b", expires_at=at + gone - 1), response("c", expires_at=at + 1))
    add(db, response("for ever"))
    with db.begin() as tx:
        assert responses.get(tx, OWN, "a") is None
        assert responses.sweep(tx, OTHER, limit=9) == []
        assert responses.sweep(tx, ALL, limit=1) == ["b"]
        assert responses.sweep(tx, ALL, limit=9) == ["a"]
        assert responses.sweep(tx, ALL, limit=9) == []
