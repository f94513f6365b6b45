"""Queries on how much there is, for whoever watches the server: numbers over all rows, cheap with many of them."""

from sqlalchemy import case, func, select

from tunesmith.domain.scope import Scope
from tunesmith.domain.states import Status
from tunesmith.domain.traces import Work
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import events, jobs, webhook_deliveries


def of_jobs(tx: Transaction, scope: Scope) -> list[tuple[str, str, int, int]]:
    """Return status, project, how many jobs and how many trained tokens, for each status and project."""
    n, tokens = func.count().label("n"), func.coalesce(func.sum(jobs.c.trained_tokens), 0).label("tokens")
    query = select(jobs.c.status, jobs.c.project_id, n, tokens).where(owned(jobs, scope))
    rows = tx.every(query.group_by(jobs.c.status, jobs.c.project_id))
    return [(str(row["status"]), str(row["project_id"]), int(row["n"]), int(row["tokens"])) for row in rows]


def queued_since(tx: Transaction, scope: Scope) -> float | None:
    """Return since when the job that has waited longest for training waits; None when none waits."""
    query = select(func.min(jobs.c.queued_at)).where(owned(jobs, scope), jobs.c.status == Status.QUEUED)
    return tx.execute(query).scalar_one()


def of_deliveries(tx: Transaction, scope: Scope) -> list[tuple[str, int]]:
    """Return status and how many deliveries of webhooks, for each status."""
    query = select(webhook_deliveries.c.status, func.count().label("n")).where(owned(webhook_deliveries, scope))
    return [(str(row["status"]), int(row["n"])) for row in tx.every(query.group_by(webhook_deliveries.c.status))]


def of_attempts(tx: Transaction, scope: Scope, job_id: str) -> list[Work]:
    """Return what each attempt of a job told, oldest first."""
    told = events.c.created_at
    steps = func.sum(case((events.c.type == "metrics", 1), else_=0)).label("steps")
    query = select(events.c.attempt, func.min(told).label("first"), func.max(told).label("last"), steps)
    query = (
        query.where(owned(events, scope), events.c.job_id == job_id).group_by(events.c.attempt).order_by(events.c.attempt)
    )
    return [Work(row["attempt"], row["first"], row["last"], int(row["steps"])) for row in tx.every(query)]
