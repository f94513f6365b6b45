"""Queries on kept answers; an expired one is absent, though its row stands until it is swept."""

from dataclasses import asdict, fields
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, insert, select, update

from tunesmith.domain.idempotency import Record
from tunesmith.domain.scope import Scope
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import idempotency

_COLUMNS: Final = [idempotency.c[field.name] for field in fields(Record)]


def _record(row: dict[str, Any]) -> Record:
    return Record(**row)


def _there(tx: Transaction, scope: Scope) -> ColumnElement[bool]:
    return and_(owned(idempotency, scope), idempotency.c.expires_at > tx.clock.now())


def add(tx: Transaction, scope: Scope, record: Record) -> None:
    """Insert a record; an expired one of the same key makes room for it.

    Raises:
        ValueError: the record is not of the scope.
    """
    project_id = getattr(scope, "project_id", record.project_id)
    if project_id != record.project_id:
        raise ValueError(f"record {record.id} is of {record.project_id}, not of {project_id}")
    if record.key is not None:
        same = and_(idempotency.c.project_id == record.project_id, idempotency.c.key == record.key)
        tx.execute(delete(idempotency).where(owned(idempotency, scope), same, idempotency.c.expires_at <= tx.clock.now()))
    tx.execute(insert(idempotency).values(**asdict(record)))


def get(tx: Transaction, scope: Scope, key: str) -> Record | None:
    """Return what is kept under a key, or None."""
    row = tx.one(select(*_COLUMNS).where(_there(tx, scope), idempotency.c.key == key))
    return None if row is None else _record(row)


def claim(tx: Transaction, scope: Scope, fingerprint: str, *, n_retries: int, since: float) -> Record | None:
    """Return the newest record without a key of what is now sent for the `n_retries`-th time again, or None.

    It is taken by that: no other request that was sent as often gets the same, so two that lost their answers get two.
    """
    of_the_same = and_(
        _there(tx, scope),
        idempotency.c.key.is_(None),
        idempotency.c.fingerprint == fingerprint,
        idempotency.c.n_retries < n_retries,
        idempotency.c.created_at >= since,
    )
    newest = select(idempotency.c.id).where(of_the_same).order_by(idempotency.c.created_at.desc(), idempotency.c.id.desc())
    # locked: of two that claim at once, PostgreSQL lets the later one go on to the next record and not away with none
    mine = newest.limit(1).with_for_update().scalar_subquery()
    statement = update(idempotency).where(idempotency.c.id == mine)
    row = tx.one(statement.values(n_retries=n_retries).returning(*_COLUMNS))
    return None if row is None else _record(row)


def sweep(tx: Transaction, scope: Scope, *, limit: int) -> list[str]:
    """Delete expired records and return their ids."""
    expired = and_(owned(idempotency, scope), idempotency.c.expires_at <= tx.clock.now())
    oldest = select(idempotency.c.id).where(expired).order_by(idempotency.c.expires_at).limit(limit)
    return list(tx.execute(delete(idempotency).where(idempotency.c.id.in_(oldest)).returning(idempotency.c.id)).scalars())
