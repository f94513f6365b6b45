"""The one place where a scope becomes SQL, a list's cursor a position, and backoff a condition."""

from sqlalchemy import ColumnElement, Table, Tuple, literal, or_, select, true, tuple_

from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.queue import LONGEST_BACKOFF_S
from tunesmith.domain.scope import Everywhere, Scope
from tunesmith.store.session import Transaction
from tunesmith.store.tables import jobs


def owned(table: Table, scope: Scope) -> ColumnElement[bool]:
    """Return the condition that a row is the scope's: its project's, or its organisation's where it is of all projects."""
    if isinstance(scope, Everywhere):
        return true()
    if "project_id" not in table.c:
        return table.c.organization_id == scope.organization_id
    return table.c.project_id == scope.project_id


def due(now: float) -> ColumnElement[bool]:
    """Return the condition that a job is not in backoff (`domain.queue.in_backoff`)."""
    return or_(jobs.c.not_before <= now, jobs.c.not_before > now + LONGEST_BACKOFF_S)


def past(tx: Transaction, scope: Scope, table: Table, after: str, *, newest_first: bool) -> ColumnElement[bool]:
    """Return the condition that a row comes after the row with id `after` in a list by time of creation.

    Raises:
        InvalidRequest: the scope has no such row.
    """
    # A comparison of rows, unlike an OR, is a range of the index.
    row, place = tuple_(table.c.created_at, table.c.id), cursor(tx, scope, table, after)
    return row < place if newest_first else row > place


def cursor(tx: Transaction, scope: Scope, table: Table, after: str) -> Tuple:
    """Return the place (`created_at`, `id`) of the row with id `after`.

    Raises:
        InvalidRequest: the scope has no such row.
    """
    found = tx.execute(select(table.c.created_at).where(table.c.id == after, owned(table, scope))).one_or_none()
    if found is None:
        raise InvalidRequest(f"There is no object with id '{after}' to list after.", param="after")
    return tuple_(literal(found.created_at), literal(after))
