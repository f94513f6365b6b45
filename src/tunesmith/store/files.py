"""Queries on file rows; an expired file is as absent as a deleted one."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, and_, delete, insert, or_, select

from tunesmith.domain.file import File
from tunesmith.domain.scope import Scope
from tunesmith.store.scoping import owned, past
from tunesmith.store.session import Transaction
from tunesmith.store.tables import files

_COLUMNS: Final = [files.c[field.name] for field in fields(File)]


def _file(row: dict[str, Any]) -> File:
    return File(**row)


def _there(tx: Transaction, scope: Scope) -> ColumnElement[bool]:
    return and_(owned(files, scope), or_(files.c.expires_at.is_(None), files.c.expires_at > tx.clock.now()))


def add(tx: Transaction, scope: Scope, file: File) -> None:
    """Insert a file.

    Raises:
        ValueError: the file is not of the scope.
    """
    project_id = getattr(scope, "project_id", file.project_id)
    if project_id != file.project_id:
        raise ValueError(f"file {file.id} is of {file.project_id}, not of {project_id}")
    tx.execute(insert(files).values(**asdict(file)))


def get(tx: Transaction, scope: Scope, file_id: str) -> File | None:
    """Return a file, or None."""
    row = tx.one(select(*_COLUMNS).where(_there(tx, scope), files.c.id == file_id))
    return None if row is None else _file(row)


def page(
    tx: Transaction,
    scope: Scope,
    *,
    purpose: str | None = None,
    after: str | None = None,
    limit: int = 10_000,
    order: Literal["asc", "desc"] = "desc",
) -> tuple[list[File], bool]:
    """Return files by time of creation and whether there are more.

    Raises:
        InvalidRequest: `after` names no file of the scope.
    """
    query = select(*_COLUMNS).where(_there(tx, scope))
    if purpose is not None:
        query = query.where(files.c.purpose == purpose)
    newest_first = order == "desc"
    if after is not None:
        query = query.where(past(tx, scope, files, after, newest_first=newest_first))
    ordering = (files.c.created_at, files.c.id)
    query = query.order_by(*(column.desc() if newest_first else column for column in ordering))
    rows = tx.every(query.limit(limit + 1))
    return [_file(row) for row in rows[:limit]], len(rows) > limit


def delete_one(tx: Transaction, scope: Scope, file_id: str) -> File | None:
    """Delete a file's row and return it; None when there was none."""
    row = tx.one(delete(files).where(_there(tx, scope), files.c.id == file_id).returning(*_COLUMNS))
    return None if row is None else _file(row)


def expired(tx: Transaction, scope: Scope, *, limit: int) -> Sequence[File]:
    """Return files whose time is over, so that their rows and bytes can go."""
    query = select(*_COLUMNS).where(owned(files, scope), files.c.expires_at <= tx.clock.now()).limit(limit)
    return [_file(row) for row in tx.every(query)]


def forget(tx: Transaction, scope: Scope, file_id: str) -> None:
    """Delete a row, expired or not."""
    tx.execute(delete(files).where(owned(files, scope), files.c.id == file_id))
