"""Queries on checkpoints; only kept ones are listed."""

from dataclasses import asdict, fields
from typing import Any, Final

from sqlalchemy import insert, select, update

from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.job import Checkpoint
from tunesmith.domain.scope import Scope
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import checkpoints

_COLUMNS: Final = [checkpoints.c[field.name] for field in fields(Checkpoint)]


def _checkpoint(row: dict[str, Any]) -> Checkpoint:
    return Checkpoint(**row)


def add(tx: Transaction, scope: Scope, checkpoint: Checkpoint) -> None:
    """Insert a checkpoint.

    Raises:
        ValueError: the checkpoint is not of the scope.
    """
    project_id = getattr(scope, "project_id", checkpoint.project_id)
    if project_id != checkpoint.project_id:
        raise ValueError(f"checkpoint {checkpoint.id} is of {checkpoint.project_id}, not of {project_id}")
    tx.execute(insert(checkpoints).values(**asdict(checkpoint)))


def get(tx: Transaction, scope: Scope, checkpoint_id: str) -> Checkpoint | None:
    """Return a checkpoint, kept or not, or None."""
    query = select(*_COLUMNS).where(owned(checkpoints, scope), checkpoints.c.id == checkpoint_id)
    row = tx.one(query)
    return None if row is None else _checkpoint(row)


def page(
    tx: Transaction, scope: Scope, job_id: str, *, after: str | None = None, limit: int = 10
) -> tuple[list[Checkpoint], bool]:
    """Return a job's kept checkpoints, highest step first, and whether there are more.

    Raises:
        InvalidRequest: `after` names no checkpoint of the job.
    """
    query = select(*_COLUMNS).where(owned(checkpoints, scope), checkpoints.c.job_id == job_id, checkpoints.c.kept)
    if after is not None:
        cursor = get(tx, scope, after)
        if cursor is None or cursor.job_id != job_id:
            raise InvalidRequest(f"There is no checkpoint with id '{after}' in job {job_id} to list after.", param="after")
        query = query.where(checkpoints.c.step < cursor.step)
    rows = tx.every(query.order_by(checkpoints.c.step.desc()).limit(limit + 1))
    return [_checkpoint(row) for row in rows[:limit]], len(rows) > limit


def measure(tx: Transaction, scope: Scope, checkpoint_id: str, metrics: dict[str, Any]) -> None:
    """Set the figures of a checkpoint."""
    tx.execute(
        update(checkpoints).where(owned(checkpoints, scope), checkpoints.c.id == checkpoint_id).values(metrics=metrics)
    )


def drop(tx: Transaction, scope: Scope, checkpoint_id: str) -> None:
    """Take a checkpoint off the list; its row stays, its bytes may go."""
    tx.execute(update(checkpoints).where(owned(checkpoints, scope), checkpoints.c.id == checkpoint_id).values(kept=False))
