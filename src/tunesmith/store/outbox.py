"""Queries on the outbox: what the world is to be told, written in the commit that it tells of."""

from sqlalchemy import insert, select

from tunesmith.domain.scope import Scope
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import jobs, outbox


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
