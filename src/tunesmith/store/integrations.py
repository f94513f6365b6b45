"""Queries on what organisations have registered with other services."""

from dataclasses import asdict, fields
from typing import Any, Final

from sqlalchemy import delete, insert, select

from tunesmith.domain.integration import Integration
from tunesmith.domain.scope import Scope
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables_recordings import integrations

_COLUMNS: Final = [integrations.c[field.name] for field in fields(Integration)]


def put(tx: Transaction, scope: Scope, integration: Integration) -> None:
    """Keep an integration in the place of the organisation's of that kind.

    Raises:
        ValueError: it is of another organisation.
    """
    own = getattr(scope, "organization_id", integration.organization_id)
    if own != integration.organization_id:
        raise ValueError(f"an integration of {integration.organization_id} is not of {own}")
    remove(tx, scope, integration.kind)
    tx.execute(insert(integrations).values(**asdict(integration)))


def get(tx: Transaction, scope: Scope, kind: str) -> Integration | None:
    """Return the integration of a kind, or None."""
    row = tx.one(select(*_COLUMNS).where(owned(integrations, scope), integrations.c.kind == kind))
    return None if row is None else Integration(**row)


def registered(tx: Transaction, scope: Scope) -> list[Integration]:
    """Return every integration there is."""
    rows: list[dict[str, Any]] = tx.every(select(*_COLUMNS).where(owned(integrations, scope)).order_by(integrations.c.kind))
    return [Integration(**row) for row in rows]


def remove(tx: Transaction, scope: Scope, kind: str) -> bool:
    """Forget the integration of a kind; False when there was none."""
    statement = delete(integrations).where(owned(integrations, scope), integrations.c.kind == kind)
    return tx.one(statement.returning(integrations.c.kind)) is not None
