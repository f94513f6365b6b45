"""Queries on the jobs that are told to trackers of experiments."""

from dataclasses import asdict, fields
from typing import Any, Final

from sqlalchemy import insert, or_, select, update

from tunesmith.domain.recording import Recording
from tunesmith.domain.scope import Scope
from tunesmith.domain.states import TERMINAL, Status
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import jobs
from tunesmith.store.tables_recordings import recordings

_COLUMNS: Final = [recordings.c[field.name] for field in fields(Recording)]


def add(tx: Transaction, scope: Scope, recording: Recording) -> None:
    """Insert a recording.

    Raises:
        ValueError: it is not of the scope.
    """
    own = getattr(scope, "project_id", recording.project_id)
    if own != recording.project_id:
        raise ValueError(f"a recording of {recording.project_id} is not of {own}")
    tx.execute(insert(recordings).values(**asdict(recording)))


def of_job(tx: Transaction, scope: Scope, job_id: str) -> list[Recording]:
    """Return a job's recordings in order."""
    query = select(*_COLUMNS).where(owned(recordings, scope), recordings.c.job_id == job_id)
    return [Recording(**row) for row in tx.every(query.order_by(recordings.c.place))]


def due(tx: Transaction, scope: Scope, *, limit: int) -> list[Recording]:
    """Return recordings whose job trains or has ended, and that may be tried now; the longest due first."""
    there_is_news = or_(
        jobs.c.status.in_([str(status) for status in (*TERMINAL, Status.RUNNING)]),
        (jobs.c.status == str(Status.PAUSED)) & (recordings.c.status == "recording"),
    )
    query = (
        select(*_COLUMNS)
        .join(jobs, jobs.c.id == recordings.c.job_id)
        .where(owned(recordings, scope), recordings.c.status.in_(["waiting", "recording", "resting"]), there_is_news)
        .where(recordings.c.next_try_at <= tx.clock.now())
        .order_by(recordings.c.next_try_at, recordings.c.job_id, recordings.c.place)
    )
    return [Recording(**row) for row in tx.every(query.limit(limit))]


def change(tx: Transaction, scope: Scope, job_id: str, place: int, **changes: Any) -> Recording | None:
    """Change a recording and return it; None when there is none."""
    statement = update(recordings).where(owned(recordings, scope), recordings.c.job_id == job_id)
    row = tx.one(statement.where(recordings.c.place == place).values(**changes).returning(*_COLUMNS))
    return None if row is None else Recording(**row)
