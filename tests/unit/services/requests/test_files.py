"""Files: stored whole or not at all, absent once deleted or expired, kept while a job trains on them."""

import os
from typing import Any

import pytest

from tunesmith.core.errors import (
    FileNotFound,
    InvalidRequest,
    StorageFull,
    TooLarge,
)
from tunesmith.domain.file import File
from tunesmith.domain.ports import Handle
from tunesmith.domain.scope import Project
from tunesmith.domain.states import Status
from tunesmith.services.retention import Retention
from tunesmith.store import audit, files, outbox

OWN, OTHER = Project("proj_a", "org-a"), Project("proj_b", "org-b")
ROWS = b'{"messages": []}\n{"messages": []}\n'
HANDLE = {"pid": 11, "start_time": 22, "boot_id": "b"}


def test_an_upload_is_stored_as_it_came(rig: Any) -> None:
    file = rig.upload(filename="Übung ☃.jsonl", chunks=[ROWS[:7], ROWS[7:]], expires_after_s=3600)
    assert (file.filename, file.bytes, file.purpose) == ("Übung ☃.jsonl", len(ROWS), "fine-tune")
    assert file.expires_at == 1_700_003_600
    assert rig.files.get(OWN, file.id) == file
    found, stream = rig.files.open(OWN, file.id)
    with stream:
        assert (found, stream.read()) == (file, ROWS)


def test_batch_files_go_after_thirty_days_and_others_stay(rig: Any) -> None:
    assert rig.upload(purpose="batch").expires_at == 1_700_000_000 + 30 * 24 * 3600
    assert rig.upload(purpose="batch", expires_after_s=3600).expires_at == 1_700_003_600
    assert rig.upload(purpose="user_data", chunks=[b"anything"]).expires_at is None


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"purpose": "fine-tune-results"}, InvalidRequest, r"'fine-tune-results' is not one of \['fine-tune', 'assistants'"),
        ({"chunks": [b"not json\n"]}, InvalidRequest, "Expected file to have JSONL format"),
        ({"chunks": [ROWS, b"[1]\n"]}, InvalidRequest, "Line 3"),
        ({"chunks": []}, InvalidRequest, "The file is empty"),
        ({"purpose": "batch", "chunks": [b"", b""]}, InvalidRequest, "The file is empty"),
        ({"chunks": [ROWS] * 400}, TooLarge, "larger than the limit of 10000 bytes"),
        ({"chunks": [b'{"a": "' + b"x" * 2_000 + b'"}\n']}, InvalidRequest, "Line 1"),
    ],
)
def test_a_refused_upload_leaves_nothing(rig: Any, changes: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        rig.upload(**changes)
    assert rig.files.page(OWN, purpose=None, after=None, limit=10, order="desc") == ([], False)
    assert rig.blobs.keys("files") == []


def test_a_full_disk_leaves_nothing(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "blobs.write=raise")
    with pytest.raises(OSError, match="No space left"):
        rig.upload()
    assert rig.blobs.keys("files") == []


def test_a_full_disk_under_the_database_leaves_nothing(rig: Any) -> None:
    from sqlalchemy import text

    with rig.db.begin() as tx:
        n_pages = tx.execute(text("PRAGMA page_count")).scalar()
        tx.execute(text(f"PRAGMA max_page_count={n_pages}"))
    with pytest.raises(StorageFull, match="Free space"):
        rig.upload(filename="x" * 100_000)
    assert rig.blobs.keys("files") == []


def test_files_of_another_project_are_unknown(rig: Any) -> None:
    file = rig.upload()
    for act in (rig.files.get, rig.files.open, rig.files.delete):
        with pytest.raises(FileNotFound, match=f"No such File object: {file.id}"):
            act(OTHER, file.id)
    assert rig.bytes_of(file)


def test_a_deleted_file_is_gone_with_its_bytes(rig: Any) -> None:
    file = rig.upload()
    rig.files.delete(OWN, file.id)
    assert not rig.bytes_of(file)
    for act in (rig.files.get, rig.files.open, rig.files.delete):
        with pytest.raises(FileNotFound):
            act(OWN, file.id)
    with rig.db.read() as tx:
        assert files.retained(tx, OWN, file.id) is None


def test_a_row_whose_bytes_are_lost_is_an_unknown_file(rig: Any) -> None:
    file = rig.upload()
    rig.blobs.delete(file.key)
    with pytest.raises(FileNotFound):
        rig.files.open(OWN, file.id)


def test_an_expired_file_is_gone_and_swept(rig: Any) -> None:
    file, other = rig.upload(expires_after_s=3600), rig.upload()
    rig.clock.at += 3600
    with pytest.raises(FileNotFound):
        rig.files.get(OWN, file.id)
    assert rig.files.sweep() == 1
    assert rig.files.sweep() == 0
    assert (rig.bytes_of(file), rig.bytes_of(other)) == (False, True)
    rig.files.delete(OWN, other.id)
    with rig.db.read() as tx:
        entries, _ = audit.page(tx, OWN)
    assert [(each.actor, each.action, each.objects) for each in entries] == [("system", "file.expired", [file.id])]


def test_a_crash_between_delete_and_bytes_is_made_good_by_the_next_sweep(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = rig.upload()
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "files.deleted=raise")
    with pytest.raises(OSError, match="No space"):
        rig.files.delete(OWN, file.id)
    assert rig.bytes_of(file)
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "files.swept=raise")
    with pytest.raises(OSError, match="No space"):
        rig.files.sweep()
    monkeypatch.delenv("TUNESMITH_FAILPOINTS")
    retention = Retention(rig.files.sweep, rig.idempotency.sweep)
    retention.start()
    end = 0
    while _kept(rig, file) and end < 3000:
        end += 1
        retention._ending.wait(0.01)
    retention.stop()
    assert not _kept(rig, file)


def _kept(rig: Any, file: File) -> bool:
    with rig.db.read() as tx:
        return files.retained(tx, OWN, file.id) is not None


@pytest.mark.parametrize("field", ["training_file", "validation_file"])
def test_deleting_a_file_fails_the_jobs_that_have_not_begun(rig: Any, field: str) -> None:
    file = rig.upload()
    job = rig.job(**{field: file.id})
    validating = rig.set(rig.job(**{field: file.id}), attempt=1, handle=HANDLE)
    untouched = rig.job()
    rig.files.delete(OWN, file.id)
    what = field.replace("_", " ")
    for found in (rig.jobs.get(OWN, job.id), rig.jobs.get(OWN, validating.id)):
        assert found.status is Status.FAILED
        assert found.error == {
            "code": f"deleted_{field}", "param": field, "message": f"The job failed because the {what} was deleted",
        }  # fmt: skip
        assert found.finished_at == rig.clock.at
        assert rig.told(found)[-1] == ("error", f"The job failed because the {what} was deleted")
    assert rig.executor.stopped == [Handle(**HANDLE)]
    assert rig.jobs.get(OWN, untouched.id).status is Status.VALIDATING_FILES
    assert not rig.bytes_of(file)
    with rig.db.read() as tx:
        assert outbox.pending(tx, OWN, job.id) == ["fine_tuning.job.failed"]


@pytest.mark.parametrize("status", [Status.RUNNING, Status.QUEUED])
def test_a_job_that_has_begun_keeps_the_bytes_of_a_deleted_file_until_it_ends(rig: Any, status: Status) -> None:
    file = rig.upload()
    job = rig.set(rig.job(training_file=file.id), status=status, attempt=1, started_at=5.0)
    rig.files.delete(OWN, file.id)
    with pytest.raises(FileNotFound):
        rig.files.get(OWN, file.id)
    assert rig.jobs.get(OWN, job.id).status is status
    assert rig.bytes_of(file)
    assert rig.files.sweep() == 0
    rig.jobs.cancel(OWN, job.id)
    assert rig.files.sweep() == 1
    assert not rig.bytes_of(file)


def test_files_live_on_the_disk_under_their_id(rig: Any) -> None:
    file = rig.upload()
    assert os.fspath(rig.blobs.path(f"files/{file.id}")).endswith(file.id)
    assert rig.blobs.path(file.key).read_bytes() == ROWS
