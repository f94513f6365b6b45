"""Queries on uploads: which take parts, which end, which are over, by row and by time."""

from dataclasses import replace
from typing import Any

from tunesmith.domain.scope import Everywhere, Project
from tunesmith.domain.upload import Part, Upload
from tunesmith.store import uploads
from tunesmith.store.session import Database

OWN, OTHER = Project("proj_a", "org-a"), Project("proj_b", "org-b")
ALL = Everywhere("a test looks at everything")


def _begun(db: Database, name: str, **fields: Any) -> Upload:
    with db.read() as tx:
        at = tx.clock.now()
    known = Upload(f"upload_{name}", "proj_a", "org-a", at, at + 3600, "a.jsonl", "fine-tune", 10)
    upload = replace(known, **fields)
    with db.begin() as tx:
        uploads.add(tx, OWN, upload)
    return upload


def _part(upload: Upload, name: str, n_bytes: int = 6) -> Part:
    return Part(f"part_{name}", upload.id, upload.project_id, upload.created_at, n_bytes)


def test_an_upload_comes_back_as_it_went_in(db: Database) -> None:
    upload = _begun(db, "a", expires_after_s=4000)
    with db.read() as tx:
        assert uploads.get(tx, OWN, upload.id) == upload
        assert uploads.get(tx, OTHER, upload.id) is None
        assert uploads.parts(tx, OWN, upload.id) == []


def test_parts_are_taken_up_to_the_most_bytes_and_while_it_is_pending(db: Database) -> None:
    upload = _begun(db, "a")
    with db.begin() as tx:
        assert uploads.add_part(tx, OWN, _part(upload, "1"), most_bytes=12)
        assert uploads.add_part(tx, OWN, _part(upload, "2"), most_bytes=12)
        assert not uploads.add_part(tx, OWN, _part(upload, "3"), most_bytes=12)
        assert [part.id for part in uploads.parts(tx, OWN, upload.id)] == ["part_1", "part_2"]
        assert uploads.parts(tx, OTHER, upload.id) == []
    with db.begin() as tx:
        assert uploads.end(tx, OTHER, upload.id, "cancelled") is None
        over = uploads.end(tx, OWN, upload.id, "completed", file_id="file-x", part_ids=["part_2", "part_1"])
        assert over == replace(
            upload, status="completed", file_id="file-x", part_ids=["part_2", "part_1"], received_bytes=12
        )
        assert uploads.end(tx, OWN, upload.id, "cancelled") is None
        assert not uploads.add_part(tx, OWN, _part(upload, "4"), most_bytes=1000)


def test_an_hour_ends_it_and_its_parts_are_forgotten_once(db: Database, watch: Any) -> None:
    late, early = _begun(db, "a"), _begun(db, "b")
    with db.begin() as tx:
        assert uploads.add_part(tx, OWN, _part(late, "1"), most_bytes=12)
        assert uploads.ended(tx, ALL, limit=9) == []
        uploads.end(tx, OWN, early.id, "cancelled")
    watch.at += 3600
    with db.begin() as tx:
        assert uploads.end(tx, OWN, late.id, "completed") is None
        assert not uploads.add_part(tx, OWN, _part(late, "2"), most_bytes=99)
        over = uploads.ended(tx, ALL, limit=9)
        assert [(upload.id, upload.status) for upload in over] == [(late.id, "expired"), (early.id, "cancelled")]
        assert uploads.ended(tx, OTHER, limit=9) == []
        for upload in over:
            uploads.forget_parts(tx, ALL, upload)
        assert uploads.ended(tx, ALL, limit=9) == []
        assert uploads.parts(tx, OWN, late.id) == []
        assert [uploads.get(tx, OWN, upload.id).status for upload in over] == ["expired", "cancelled"]  # type: ignore[union-attr]
