"""Queries on the audit log, which is only ever added to."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Final, Literal

from sqlalchemy import insert, select

from tunesmith.domain.audit import SYSTEM, Entry
from tunesmith.domain.scope import Scope
from tunesmith.store.scoping import owned, past
from tunesmith.store.session import Transaction
from tunesmith.store.tables_sharing import audit

_COLUMNS: Final = [audit.c[field.name] for field in fields(Entry)]


def add(tx: Transaction, scope: Scope, entries: Sequence[Entry]) -> None:
    """Insert entries.

    Raises:
        ValueError: one is not of the scope.
    """
    for entry in entries:
        project_id = getattr(scope, "project_id", entry.project_id)
        if project_id != entry.project_id:
            raise ValueError(f"entry {entry.id} is of {entry.project_id}, not of {project_id}")
    if entries:
        tx.execute(insert(audit), [asdict(entry) for entry in entries])


def tell(tx: Transaction, scope: Scope, action: str, project_id: str, objects: Sequence[str]) -> None:
    """Note a change that the server makes by itself, in the commit that makes it."""
    add(tx, scope, [Entry(tx.ids.audit(), project_id, tx.clock.now(), SYSTEM, action, list(objects))])


def page(
    tx: Transaction,
    scope: Scope,
    *,
    key_id: str | None = None,
    since: float | None = None,
    until: float | None = None,
    after: str | None = None,
    limit: int = 20,
    order: Literal["asc", "desc"] = "desc",
) -> tuple[list[Entry], bool]:
    """Return entries by time, `since` and before `until`, and whether there are more.

    Raises:
        InvalidRequest: `after` names no entry of the scope.
    """
    query = select(*_COLUMNS).where(owned(audit, scope))
    newest_first = order == "desc"
    if key_id is not None:
        query = query.where(audit.c.key_id == key_id)
    if since is not None:
        query = query.where(audit.c.created_at >= since)
    if until is not None:
        query = query.where(audit.c.created_at < until)
    if after is not None:
        query = query.where(past(tx, scope, audit, after, newest_first=newest_first))
    ordering = (audit.c.created_at, audit.c.id)
    found = tx.every(query.order_by(*(each.desc() if newest_first else each for each in ordering)).limit(limit + 1))
    return [Entry(**row) for row in found[:limit]], len(found) > limit
