"""Queries on what projects may have, and on how much of it they have."""

from typing import Final

from sqlalchemy import delete, func, insert, select

from tunesmith.domain.limits import ProjectLimits
from tunesmith.domain.scope import Scope
from tunesmith.domain.states import Status
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import files, jobs
from tunesmith.store.tables_limits import project_limits

_COLUMNS: Final = [project_limits.c[name] for name in ("project_id", "own", "rates")]


def every(tx: Transaction, scope: Scope) -> list[ProjectLimits]:
    """Return the own limits of the scope's projects."""
    return [ProjectLimits(**row) for row in tx.every(select(*_COLUMNS).where(owned(project_limits, scope)))]


def keep(tx: Transaction, scope: Scope, limits: ProjectLimits) -> None:
    """Put a project's own limits in place of those that it had.

    Raises:
        ValueError: the project is not of the scope.
    """
    project_id = getattr(scope, "project_id", limits.project_id)
    if project_id != limits.project_id:
        raise ValueError(f"limits of {limits.project_id}, not of {project_id}")
    tx.execute(delete(project_limits).where(owned(project_limits, scope), project_limits.c.project_id == project_id))
    rates = {base: dict(rate) for base, rate in limits.rates.items()}
    tx.execute(insert(project_limits).values(project_id=project_id, own=dict(limits.own), rates=rates))


def n_waiting(tx: Transaction, scope: Scope) -> int:
    """Return how many jobs wait for their validation or their training."""
    waiting = jobs.c.status.in_([Status.VALIDATING_FILES, Status.QUEUED])
    return tx.execute(select(func.count()).select_from(jobs).where(owned(jobs, scope), waiting)).scalar_one()


def n_files(tx: Transaction, scope: Scope) -> int:
    """Return how many files there are; a deleted one counts while a job still needs its bytes."""
    return tx.execute(select(func.count()).select_from(files).where(owned(files, scope))).scalar_one()


def n_bytes(tx: Transaction, scope: Scope) -> int:
    """Return how many bytes these files have."""
    counted = select(func.coalesce(func.sum(files.c.bytes), 0)).where(owned(files, scope))
    return int(tx.execute(counted).scalar_one())
