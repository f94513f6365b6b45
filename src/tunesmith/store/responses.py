"""Queries on stored responses; an expired one is absent, though its row stands until it is swept."""

from collections.abc import Collection
from dataclasses import asdict, fields
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, insert, literal, or_, select, update

from tunesmith.domain.response import StoredResponse
from tunesmith.domain.scope import Scope
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import responses

_COLUMNS: Final = [responses.c[field.name] for field in fields(StoredResponse)]


def _response(row: dict[str, Any]) -> StoredResponse:
    return StoredResponse(**row)


def _there(tx: Transaction, scope: Scope) -> ColumnElement[bool]:
    unexpired = or_(responses.c.expires_at.is_(None), responses.c.expires_at > tx.clock.now())
    return and_(owned(responses, scope), unexpired)


def add(tx: Transaction, scope: Scope, response: StoredResponse) -> None:
    """Insert a response.

    Raises:
        ValueError: the response is not of the scope.
    """
    project_id = getattr(scope, "project_id", response.project_id)
    if project_id != response.project_id:
        raise ValueError(f"response {response.id} is of {response.project_id}, not of {project_id}")
    tx.execute(insert(responses).values(**asdict(response)))


def get(tx: Transaction, scope: Scope, response_id: str) -> StoredResponse | None:
    """Return a response, or None."""
    row = tx.one(select(*_COLUMNS).where(_there(tx, scope), responses.c.id == response_id))
    return None if row is None else _response(row)


def chain(tx: Transaction, scope: Scope, response_id: str) -> list[StoredResponse]:
    """Return a response and those that it goes on from, the oldest first, as far back as they are there."""
    depth = literal(0).label("depth")
    first = select(responses.c.id, responses.c.previous_id, depth).where(_there(tx, scope), responses.c.id == response_id)
    walk = first.cte("walk", recursive=True)
    earlier = select(responses.c.id, responses.c.previous_id, walk.c.depth + 1).where(
        _there(tx, scope), responses.c.id == walk.c.previous_id
    )
    walk = walk.union_all(earlier)
    query = select(*_COLUMNS).where(owned(responses, scope)).join(walk, walk.c.id == responses.c.id)
    return [_response(row) for row in tx.every(query.order_by(walk.c.depth.desc()))]


def keep_until(tx: Transaction, scope: Scope, response_ids: Collection[str], expires_at: float | None) -> None:
    """Let responses live on as long as one that goes on from them."""
    mine = (_there(tx, scope), responses.c.id.in_(response_ids))
    tx.execute(update(responses).where(*mine).values(expires_at=expires_at))


def delete_one(tx: Transaction, scope: Scope, response_id: str) -> bool:
    """Delete a response; False when there was none."""
    return tx.execute(delete(responses).where(_there(tx, scope), responses.c.id == response_id)).rowcount > 0


def sweep(tx: Transaction, scope: Scope, *, limit: int) -> list[str]:
    """Delete expired responses and return their ids."""
    expired = and_(owned(responses, scope), responses.c.expires_at <= tx.clock.now())
    oldest = select(responses.c.id).where(expired).order_by(responses.c.expires_at).limit(limit)
    return list(tx.execute(delete(responses).where(responses.c.id.in_(oldest)).returning(responses.c.id)).scalars())
