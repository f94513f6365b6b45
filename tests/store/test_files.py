"""Queries on files: lists in both orders, absence by deletion and by time, rows kept while a job needs the bytes."""

from collections.abc import Callable
from typing import Any

import pytest

from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.file import File
from tunesmith.domain.job import Job
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.domain.states import TERMINAL, Status
from tunesmith.store import files, jobs
from tunesmith.store.session import Database

OWN, OTHER = Project("proj_a", "org-a"), Project("proj_b", "org-b")
ALL = Everywhere("a test looks at everything")


def _file(name: str, scope: Project = OWN, **fields: Any) -> File:
    known: dict[str, Any] = {
        "id": f"file-{name}",
        "project_id": scope.project_id,
        "organization_id": scope.organization_id,
        "created_at": 1.0,
        "filename": "Übung 1.jsonl",
        "purpose": "fine-tune",
        "bytes": 2**40,
        "sha256": "0" * 64,
        "key": f"files/file-{name}",
        "expires_at": None,
    }
    return File(**{**known, **fields})


def _add(db: Database, *made: File) -> None:
    with db.begin() as tx:
        for file in made:
            files.add(tx, Project(file.project_id), file)


def _unneeded(db: Database) -> list[str]:
    with db.read() as tx:
        return [file.id for file in files.unneeded(tx, ALL, limit=10)]


def test_a_file_comes_back_as_it_went_in(db: Database) -> None:
    file = _file("a", expires_at=2e9)
    _add(db, file)
    with db.read() as tx:
        assert files.get(tx, OWN, file.id) == files.retained(tx, OWN, file.id) == file
        assert files.get(tx, OTHER, file.id) is None
        assert files.retained(tx, OTHER, file.id) is None
        assert files.get(tx, OWN, "file-none") is None


def test_a_file_of_another_project_cannot_be_added(db: Database) -> None:
    with pytest.raises(ValueError, match="is of proj_b, not of proj_a"), db.begin() as tx:
        files.add(tx, OWN, _file("a", OTHER))


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_list_is_in_order_whatever_the_page(db: Database, order: Any) -> None:
    made = [_file(name, created_at=float(at)) for name, at in zip("edcba", (3, 1, 3, 2, 3), strict=True)]
    _add(db, *made, _file("z", OTHER, created_at=2.0))
    right = [file.id for file in sorted(made, key=lambda file: (file.created_at, file.id), reverse=order == "desc")]
    with db.read() as tx:
        for size in (1, 2, 5):
            seen: list[str] = []
            after, more = None, True
            while more:
                page, more = files.page(tx, OWN, after=after, limit=size, order=order)
                seen += [file.id for file in page]
                after = page[-1].id
            assert seen == right


def test_a_list_can_be_of_one_purpose_and_goes_on_from_a_known_file(db: Database) -> None:
    _add(db, _file("a"), _file("b", purpose="batch"), _file("c", OTHER))
    with db.read() as tx:
        assert [file.id for file in files.page(tx, OWN, purpose="batch")[0]] == ["file-b"]
        with pytest.raises(InvalidRequest, match="file-c") as raised:
            files.page(tx, OWN, after="file-c")
    assert raised.value.error_param == "after"


def test_a_file_is_gone_from_the_second_it_expires(db: Database, watch: Any) -> None:
    _add(db, _file("a", expires_at=watch.at + 10), _file("b"))
    watch.at += 9.9
    with db.read() as tx:
        assert files.get(tx, OWN, "file-a") is not None
    watch.at += 0.1
    with db.begin() as tx:
        assert files.get(tx, OWN, "file-a") is None
        assert [file.id for file in files.page(tx, OWN)[0]] == ["file-b"]
        assert files.delete_one(tx, OWN, "file-a") is None
        assert files.retained(tx, OWN, "file-a") is not None
    assert _unneeded(db) == ["file-a"]


def test_deleting_is_done_once_and_only_by_the_owner(db: Database) -> None:
    _add(db, _file("a"), _file("b"))
    with db.begin() as tx:
        assert files.delete_one(tx, OTHER, "file-a") is None
        deleted = files.delete_one(tx, OWN, "file-a")
        assert deleted == _file("a")
        assert files.delete_one(tx, OWN, "file-a") is None
        assert files.get(tx, OWN, "file-a") is None
        assert [file.id for file in files.page(tx, OWN)[0]] == ["file-b"]
        assert files.retained(tx, OWN, "file-a") == deleted
    assert _unneeded(db) == ["file-a"]
    with db.begin() as tx:
        files.forget(tx, OTHER, "file-a")
        assert files.retained(tx, OWN, "file-a") is not None
        files.forget(tx, OWN, "file-a")
        assert files.retained(tx, OWN, "file-a") is None
    assert _unneeded(db) == []


@pytest.mark.parametrize("field", ["training_file", "validation_file"])
@pytest.mark.parametrize("status", Status)
def test_a_deleted_file_is_needed_until_its_jobs_have_ended(
    db: Database, new_job: Callable[..., Job], field: str, status: Status
) -> None:
    _add(db, _file("a"))
    job = new_job(status=status, **{field: "file-a"})
    with db.begin() as tx:
        jobs.add(tx, OWN, job)
        assert files.delete_one(tx, OWN, "file-a") is not None
    assert _unneeded(db) == (["file-a"] if status in TERMINAL else [])


def test_another_projects_job_does_not_hold_a_file(db: Database, new_job: Callable[..., Job]) -> None:
    _add(db, _file("a"))
    with db.begin() as tx:
        jobs.add(tx, OTHER, new_job(OTHER, training_file="file-a"))
        files.delete_one(tx, OWN, "file-a")
    assert _unneeded(db) == ["file-a"]
