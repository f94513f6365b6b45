"""Queries on the outbox: what the world is to be told, written in the commit that it tells of."""

from dataclasses import dataclass

from sqlalchemy import insert, select, update

from tunesmith.domain.scope import Scope
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import jobs, outbox


@dataclass(frozen=True, slots=True)
class Told:
    """An event of a job that the world is to be told."""

    id: str
    job_id: str
    project_id: str
    type: str
    created_at: float


def add(tx: Transaction, scope: Scope, job_id: str, type: str) -> None:
    """Note that an event of a type (`fine_tuning.job.succeeded`) is to be told for a job."""
    owner = tx.execute(select(jobs.c.project_id).where(jobs.c.id == job_id, owned(jobs, scope))).scalar_one_or_none()
    if owner is None:
        return
    now = tx.clock.now()
    tx.execute(
        insert(outbox).values(
            id=tx.ids.outbox(),
            job_id=job_id,
            project_id=owner,
            type=type,
            created_at=now,
            n_tries=0,
            next_try_at=now,
        )
    )


def pending(tx: Transaction, scope: Scope, job_id: str) -> list[str]:
    """Return the types that wait to be told for a job."""
    query = select(outbox.c.type).where(owned(outbox, scope), outbox.c.job_id == job_id, outbox.c.delivered_at.is_(None))
    return list(tx.execute(query.order_by(outbox.c.created_at)).scalars())


def untold(tx: Transaction, scope: Scope, *, limit: int) -> list[Told]:
    """Return events that nobody was told of yet, oldest first."""
    columns = (outbox.c.id, outbox.c.job_id, outbox.c.project_id, outbox.c.type, outbox.c.created_at)
    query = select(*columns).where(owned(outbox, scope), outbox.c.delivered_at.is_(None))
    return [Told(**row) for row in tx.every(query.order_by(outbox.c.created_at, outbox.c.id).limit(limit))]


def tell(tx: Transaction, scope: Scope, event_id: str) -> None:
    """Note that an event was handed to whoever wants to know of it."""
    statement = update(outbox).where(owned(outbox, scope), outbox.c.id == event_id)
    tx.execute(statement.values(delivered_at=tx.clock.now()))
