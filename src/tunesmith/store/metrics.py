"""Queries on the metrics of a job's steps, from which its result file is made."""

from typing import Any

from sqlalchemy import delete, func, insert, select

from tunesmith.domain.scope import Scope
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import jobs, metrics


def add(tx: Transaction, scope: Scope, job_id: str, step: int, data: dict[str, Any]) -> None:
    """Record a step's metrics; a step that is taken again, after a lost attempt, replaces its first record."""
    owner = tx.execute(select(jobs.c.project_id).where(jobs.c.id == job_id, owned(jobs, scope))).scalar_one_or_none()
    if owner is None:
        return
    tx.execute(delete(metrics).where(owned(metrics, scope), metrics.c.job_id == job_id, metrics.c.step == step))
    tx.execute(insert(metrics).values(job_id=job_id, step=step, project_id=owner, data=data))


def all(tx: Transaction, scope: Scope, job_id: str, *, after: int | None = None) -> list[tuple[int, dict[str, Any]]]:
    """Return the metrics of every step, or of those after `after`, in order; before the first it is step 0."""
    mine = [owned(metrics, scope), metrics.c.job_id == job_id]
    if after is not None:
        mine.append(metrics.c.step > after)
    return [
        (row.step, row.data)
        for row in tx.execute(select(metrics.c.step, metrics.c.data).where(*mine).order_by(metrics.c.step))
    ]


def last_step(tx: Transaction, scope: Scope, job_id: str) -> int | None:
    """Return the last step that has metrics."""
    query = select(func.max(metrics.c.step)).where(owned(metrics, scope), metrics.c.job_id == job_id)
    return tx.execute(query).scalar_one()
