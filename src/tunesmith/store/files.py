"""Queries on file rows; a deleted or expired one is absent, though its row and bytes stay while a job needs them."""

from dataclasses import asdict, fields
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, and_, delete, insert, or_, select, update

from tunesmith.domain.file import File
from tunesmith.domain.scope import Scope
from tunesmith.domain.states import TERMINAL
from tunesmith.store.scoping import owned, past
from tunesmith.store.session import Transaction
from tunesmith.store.tables import files, jobs

_COLUMNS: Final = [files.c[field.name] for field in fields(File)]


def _file(row: dict[str, Any]) -> File:
    return File(**row)


def _there(tx: Transaction, scope: Scope) -> ColumnElement[bool]:
    unexpired = or_(files.c.expires_at.is_(None), files.c.expires_at > tx.clock.now())
    return and_(owned(files, scope), files.c.deleted_at.is_(None), unexpired)


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


def retained(tx: Transaction, scope: Scope, file_id: str) -> File | None:
    """Return a file whose row still stands, deleted and expired ones too: for a job that began to use it before."""
    row = tx.one(select(*_COLUMNS).where(owned(files, scope), files.c.id == file_id))
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
    """Take a file from its owner and return it; None when there was none. `forget` ends the row once the bytes are gone."""
    statement = update(files).where(_there(tx, scope), files.c.id == file_id).values(deleted_at=tx.clock.now())
    row = tx.one(statement.returning(*_COLUMNS))
    return None if row is None else _file(row)


def unneeded(tx: Transaction, scope: Scope, *, limit: int) -> list[File]:
    """Return deleted and expired files that no unfinished job uses, so that their bytes can go."""
    using = select(jobs.c.id).where(
        jobs.c.project_id == files.c.project_id,
        jobs.c.status.not_in(list(TERMINAL)),
        or_(jobs.c.training_file == files.c.id, jobs.c.validation_file == files.c.id),
    )
    gone = or_(files.c.deleted_at.is_not(None), files.c.expires_at <= tx.clock.now())
    query = select(*_COLUMNS).where(owned(files, scope), gone, ~using.exists()).order_by(files.c.id)
    return [_file(row) for row in tx.every(query.limit(limit))]


def forget(tx: Transaction, scope: Scope, file_id: str) -> bool:
    """Delete a row, whatever its state; True when it was there and nobody had deleted it before."""
    statement = delete(files).where(owned(files, scope), files.c.id == file_id)
    row = tx.one(statement.returning(files.c.deleted_at))
    return row is not None and row["deleted_at"] is None
