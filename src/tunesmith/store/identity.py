"""Queries on projects, which are the organisation's, and on keys: a project's, or nobody's for those of admins."""

from dataclasses import asdict, fields
from typing import Any, Final

from sqlalchemy import delete, insert, select, update

from tunesmith.domain.identity import Key, NamedProject
from tunesmith.domain.scope import Everywhere, Scope
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables_identity import api_keys, projects

_PROJECT: Final = [projects.c[field.name] for field in fields(NamedProject)]
_KEY: Final = [api_keys.c[field.name] for field in fields(Key)]


def add_project(tx: Transaction, scope: Everywhere, project: NamedProject) -> None:  # noqa: ARG001 - the organisation's
    """Insert a project."""
    tx.execute(insert(projects).values(**asdict(project)))


def get_projects(tx: Transaction, scope: Everywhere) -> list[NamedProject]:  # noqa: ARG001 - the organisation's
    """Return every project, oldest first."""
    return [NamedProject(**row) for row in tx.every(select(*_PROJECT).order_by(projects.c.created_at, projects.c.id))]


def change_project(
    tx: Transaction,
    scope: Everywhere,  # noqa: ARG001 - the organisation's
    project_id: str,
    **changes: Any,
) -> NamedProject | None:
    """Change a project and return it; None when there is none."""
    row = tx.one(update(projects).where(projects.c.id == project_id).values(**changes).returning(*_PROJECT))
    return None if row is None else NamedProject(**row)


def add_key(tx: Transaction, scope: Scope, key: Key) -> None:
    """Insert a key.

    Raises:
        ValueError: the key is not of the scope.
    """
    if not isinstance(scope, Everywhere) and key.project_id != scope.project_id:
        raise ValueError(f"a key of {key.project_id} is not of {scope.project_id}")
    tx.execute(insert(api_keys).values(**asdict(key)))


def get_keys(tx: Transaction, scope: Scope) -> list[Key]:
    """Return every key, oldest first."""
    rows = tx.every(select(*_KEY).where(owned(api_keys, scope)).order_by(api_keys.c.created_at, api_keys.c.id))
    return [Key(**row) for row in rows]


def change_key(tx: Transaction, scope: Scope, key_id: str, **changes: Any) -> Key | None:
    """Change a key and return it; None when there is none."""
    statement = update(api_keys).where(owned(api_keys, scope), api_keys.c.id == key_id).values(**changes)
    row = tx.one(statement.returning(*_KEY))
    return None if row is None else Key(**row)


def delete_key(tx: Transaction, scope: Scope, key_id: str) -> bool:
    """Delete a key; False when there was none."""
    statement = delete(api_keys).where(owned(api_keys, scope), api_keys.c.id == key_id)
    return tx.one(statement.returning(api_keys.c.id)) is not None
