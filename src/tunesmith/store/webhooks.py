"""Queries on webhook endpoints and on what was sent to them."""

from collections.abc import Collection
from dataclasses import asdict, fields
from typing import Any, Final

from sqlalchemy import delete, insert, or_, select, update

from tunesmith.core.secrets import SEALED
from tunesmith.domain.scope import Scope
from tunesmith.domain.webhook import Delivery, Endpoint
from tunesmith.store.scoping import owned, past
from tunesmith.store.session import Transaction
from tunesmith.store.tables import webhook_deliveries as deliveries
from tunesmith.store.tables import webhook_endpoints as endpoints

_COLUMNS: Final = [endpoints.c[field.name] for field in fields(Endpoint)]
_DELIVERY: Final = [deliveries.c[field.name] for field in fields(Delivery)]


def add_endpoint(tx: Transaction, scope: Scope, endpoint: Endpoint) -> None:
    """Insert an endpoint.

    Raises:
        ValueError: the endpoint is not of the scope.
    """
    _refuse_foreign(scope, endpoint.project_id)
    tx.execute(insert(endpoints).values(**asdict(endpoint)))


def get_endpoint(tx: Transaction, scope: Scope, endpoint_id: str) -> Endpoint | None:
    """Return an endpoint, or None."""
    row = tx.one(select(*_COLUMNS).where(owned(endpoints, scope), endpoints.c.id == endpoint_id))
    return None if row is None else Endpoint(**row)


def unsealed(tx: Transaction, scope: Scope) -> list[Endpoint]:
    """Return the endpoints that have a secret in clear."""
    clear = [column.not_like(f"{SEALED}%") for column in (endpoints.c.secret, endpoints.c.old_secret)]
    return [Endpoint(**row) for row in tx.every(select(*_COLUMNS).where(owned(endpoints, scope), or_(*clear)))]


def count_endpoints(tx: Transaction, scope: Scope) -> int:
    """Return how many endpoints there are."""
    return len(tx.every(select(endpoints.c.id).where(owned(endpoints, scope))))


def enabled(tx: Transaction, scope: Scope) -> list[Endpoint]:
    """Return the endpoints that are sent to."""
    query = select(*_COLUMNS).where(owned(endpoints, scope), endpoints.c.disabled_reason.is_(None))
    return [Endpoint(**row) for row in tx.every(query.order_by(endpoints.c.id))]


def endpoints_page(
    tx: Transaction, scope: Scope, *, after: str | None = None, limit: int = 20
) -> tuple[list[Endpoint], bool]:
    """Return endpoints, newest first, and whether there are more.

    Raises:
        InvalidRequest: `after` names no endpoint of the scope.
    """
    query = select(*_COLUMNS).where(owned(endpoints, scope))
    if after is not None:
        query = query.where(past(tx, scope, endpoints, after, newest_first=True))
    rows = tx.every(query.order_by(endpoints.c.created_at.desc(), endpoints.c.id.desc()).limit(limit + 1))
    return [Endpoint(**row) for row in rows[:limit]], len(rows) > limit


def change_endpoint(tx: Transaction, scope: Scope, endpoint_id: str, **changes: Any) -> Endpoint | None:
    """Change an endpoint and return it; None when there is none."""
    statement = update(endpoints).where(owned(endpoints, scope), endpoints.c.id == endpoint_id).values(**changes)
    row = tx.one(statement.returning(*_COLUMNS))
    return None if row is None else Endpoint(**row)


def delete_endpoint(tx: Transaction, scope: Scope, endpoint_id: str) -> bool:
    """Delete an endpoint with its deliveries; False when there was none."""
    statement = delete(endpoints).where(owned(endpoints, scope), endpoints.c.id == endpoint_id)
    return tx.one(statement.returning(endpoints.c.id)) is not None


def add_delivery(tx: Transaction, scope: Scope, delivery: Delivery) -> None:
    """Insert a delivery.

    Raises:
        ValueError: the delivery is not of the scope.
    """
    _refuse_foreign(scope, delivery.project_id)
    tx.execute(insert(deliveries).values(**asdict(delivery)))


def get_delivery(tx: Transaction, scope: Scope, delivery_id: str) -> Delivery | None:
    """Return a delivery, or None."""
    row = tx.one(select(*_DELIVERY).where(owned(deliveries, scope), deliveries.c.id == delivery_id))
    return None if row is None else Delivery(**row)


def deliveries_page(tx: Transaction, scope: Scope, endpoint_id: str, *, limit: int) -> tuple[list[Delivery], bool]:
    """Return an endpoint's deliveries, the newest event first, and whether there are more."""
    query = select(*_DELIVERY).where(owned(deliveries, scope), deliveries.c.endpoint_id == endpoint_id)
    rows = tx.every(query.order_by(deliveries.c.event_at.desc(), deliveries.c.id.desc()).limit(limit + 1))
    return [Delivery(**row) for row in rows[:limit]], len(rows) > limit


def due(tx: Transaction, scope: Scope, *, limit: int, without: Collection[str] = ()) -> list[Delivery]:
    """Return deliveries that are to be tried now, the longest due first; none to the endpoints `without`."""
    query = select(*_DELIVERY).where(owned(deliveries, scope), deliveries.c.status == "pending")
    query = query.where(deliveries.c.endpoint_id.not_in(without))
    query = query.where(deliveries.c.next_try_at <= tx.clock.now()).order_by(deliveries.c.next_try_at, deliveries.c.id)
    return [Delivery(**row) for row in tx.every(query.limit(limit))]


def change_delivery(tx: Transaction, scope: Scope, delivery_id: str, **changes: Any) -> Delivery | None:
    """Change a delivery and return it; None when there is none any more."""
    statement = update(deliveries).where(owned(deliveries, scope), deliveries.c.id == delivery_id).values(**changes)
    row = tx.one(statement.returning(*_DELIVERY))
    return None if row is None else Delivery(**row)


def give_up(tx: Transaction, scope: Scope, endpoint_id: str, reason: str) -> None:
    """Fail everything that waits to be sent to an endpoint."""
    statement = update(deliveries).where(owned(deliveries, scope), deliveries.c.endpoint_id == endpoint_id)
    tx.execute(statement.where(deliveries.c.status == "pending").values(status="failed", reason=reason))


def sweep(tx: Transaction, scope: Scope, *, before: float, limit: int) -> int:
    """Delete deliveries of events before a time, which wait no more; return how many that were."""
    old = select(deliveries.c.id).where(owned(deliveries, scope), deliveries.c.status != "pending")
    found = [row["id"] for row in tx.every(old.where(deliveries.c.created_at < before).limit(limit))]
    tx.execute(delete(deliveries).where(owned(deliveries, scope), deliveries.c.id.in_(found)))
    return len(found)


def _refuse_foreign(scope: Scope, project_id: str) -> None:
    own = getattr(scope, "project_id", project_id)
    if own != project_id:
        raise ValueError(f"a webhook of {project_id} is not of {own}")
