"""Queries on uploads and their parts; one whose hour is over is expired, whatever its row says."""

from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from typing import Any, Final

from sqlalchemy import and_, delete, insert, or_, select, update

from tunesmith.domain.scope import Scope
from tunesmith.domain.upload import Part, Upload, UploadStatus
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import upload_parts, uploads

_COLUMNS: Final = [uploads.c[field.name] for field in fields(Upload)]
_PART_COLUMNS: Final = [upload_parts.c[field.name] for field in fields(Part)]


def _upload(row: dict[str, Any], now: float) -> Upload:
    upload = Upload(**row)
    over = upload.status == "pending" and upload.expires_at <= now
    return replace(upload, status="expired") if over else upload


def add(tx: Transaction, scope: Scope, upload: Upload) -> None:
    """Insert an upload.

    Raises:
        ValueError: the upload is not of the scope.
    """
    project_id = getattr(scope, "project_id", upload.project_id)
    if project_id != upload.project_id:
        raise ValueError(f"upload {upload.id} is of {upload.project_id}, not of {project_id}")
    tx.execute(insert(uploads).values(**asdict(upload)))


def get(tx: Transaction, scope: Scope, upload_id: str) -> Upload | None:
    """Return an upload, or None."""
    row = tx.one(select(*_COLUMNS).where(owned(uploads, scope), uploads.c.id == upload_id))
    return None if row is None else _upload(row, tx.clock.now())


def add_part(tx: Transaction, scope: Scope, part: Part, *, most_bytes: int) -> bool:
    """Insert a part; False when its upload is no longer pending or would have received more than `most_bytes`.

    Raises:
        ValueError: the part is not of the scope.
    """
    project_id = getattr(scope, "project_id", part.project_id)
    if project_id != part.project_id:
        raise ValueError(f"part {part.id} is of {part.project_id}, not of {project_id}")
    received = uploads.c.received_bytes + part.bytes
    statement = (
        update(uploads)
        .where(owned(uploads, scope), uploads.c.id == part.upload_id, uploads.c.status == "pending")
        .where(uploads.c.expires_at > tx.clock.now(), received <= most_bytes)
        .values(received_bytes=received)
    )
    if tx.one(statement.returning(uploads.c.id)) is None:
        return False
    tx.execute(insert(upload_parts).values(**asdict(part)))
    return True


def parts(tx: Transaction, scope: Scope, upload_id: str) -> list[Part]:
    """Return the parts of an upload, in the order in which they came."""
    query = select(*_PART_COLUMNS).where(owned(upload_parts, scope), upload_parts.c.upload_id == upload_id)
    return [Part(**row) for row in tx.every(query.order_by(upload_parts.c.created_at, upload_parts.c.id))]


def end(
    tx: Transaction,
    scope: Scope,
    upload_id: str,
    status: UploadStatus,
    *,
    file_id: str | None = None,
    part_ids: Iterable[str] = (),
) -> Upload | None:
    """End a pending upload and return it; None when it was not pending any more."""
    statement = (
        update(uploads)
        .where(owned(uploads, scope), uploads.c.id == upload_id, uploads.c.status == "pending")
        .where(uploads.c.expires_at > tx.clock.now())
        .values(status=status, file_id=file_id, part_ids=list(part_ids) or None)
    )
    row = tx.one(statement.returning(*_COLUMNS))
    return None if row is None else Upload(**row)


def ended(tx: Transaction, scope: Scope, *, limit: int) -> list[Upload]:
    """Return uploads that are over and may still have bytes of parts in the store."""
    now = tx.clock.now()
    over = or_(uploads.c.status != "pending", and_(uploads.c.status == "pending", uploads.c.expires_at <= now))
    query = select(*_COLUMNS).where(owned(uploads, scope), uploads.c.has_parts, over).order_by(uploads.c.id)
    return [_upload(row, now) for row in tx.every(query.limit(limit))]


def forget_parts(tx: Transaction, scope: Scope, upload: Upload) -> bool:
    """Note that the bytes of an upload's parts are gone, and how it ended; False when that was known."""
    tx.execute(delete(upload_parts).where(owned(upload_parts, scope), upload_parts.c.upload_id == upload.id))
    statement = update(uploads).where(owned(uploads, scope), uploads.c.id == upload.id, uploads.c.has_parts)
    done = tx.one(statement.values(has_parts=False, status=upload.status).returning(uploads.c.id))
    return done is not None
