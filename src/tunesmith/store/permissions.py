"""Queries on permissions, which are the project's that may use a model; what they let it see is in `store/models.py`."""

from dataclasses import asdict, fields
from typing import Any, Final, Literal

from sqlalchemy import delete, insert, select

from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.permission import Permission
from tunesmith.domain.scope import Scope
from tunesmith.store.scoping import owned, past
from tunesmith.store.session import Transaction
from tunesmith.store.tables_sharing import checkpoint_permissions as rows

_COLUMNS: Final = [rows.c[field.name] for field in fields(Permission)]


def _permission(row: dict[str, Any] | None) -> Permission | None:
    return None if row is None else Permission(**row)


def add(tx: Transaction, scope: Scope, permission: Permission) -> None:
    """Insert a permission.

    Raises:
        ValueError: the permission is not of the scope.
    """
    project_id = getattr(scope, "project_id", permission.project_id)
    if project_id != permission.project_id:
        raise ValueError(f"permission {permission.id} is of {permission.project_id}, not of {project_id}")
    tx.execute(insert(rows).values(**asdict(permission)))


def of(tx: Transaction, scope: Scope, model: str) -> list[Permission]:
    """Return every permission to use a model, oldest first."""
    query = select(*_COLUMNS).where(owned(rows, scope), rows.c.model == model)
    return [Permission(**row) for row in tx.every(query.order_by(rows.c.created_at, rows.c.id))]


def page(
    tx: Transaction,
    scope: Scope,
    model: str,
    *,
    after: str | None = None,
    limit: int = 10,
    order: Literal["asc", "desc"] = "desc",
) -> tuple[list[Permission], bool]:
    """Return permissions to use a model by time of creation, and whether there are more.

    Raises:
        InvalidRequest: `after` names no permission of the scope to use it.
    """
    query = select(*_COLUMNS).where(owned(rows, scope), rows.c.model == model)
    newest_first = order == "desc"
    if after is not None:
        if tx.one(query.where(rows.c.id == after)) is None:
            raise InvalidRequest(f"There is no permission with id '{after}' for {model} to list after.", param="after")
        query = query.where(past(tx, scope, rows, after, newest_first=newest_first))
    ordering = (rows.c.created_at, rows.c.id)
    found = tx.every(query.order_by(*(each.desc() if newest_first else each for each in ordering)).limit(limit + 1))
    return [Permission(**row) for row in found[:limit]], len(found) > limit


def delete_one(tx: Transaction, scope: Scope, model: str, permission_id: str) -> Permission | None:
    """Withdraw a permission to use a model and return it; None when there was none."""
    statement = delete(rows).where(owned(rows, scope), rows.c.model == model, rows.c.id == permission_id)
    return _permission(tx.one(statement.returning(*_COLUMNS)))
