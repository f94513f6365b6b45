"""Queries on the queue: how many slots are taken, and how many jobs stand before one.

A project's jobs stand among those of all the others, of which only numbers are returned.
"""

from dataclasses import fields
from typing import Any, Final

from sqlalchemy import ColumnElement, Integer, Select, and_, case, false, func, literal, or_, select, tuple_

from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.job import Job
from tunesmith.domain.queue import Limits, Load
from tunesmith.domain.scope import Scope
from tunesmith.domain.states import Desired, Status
from tunesmith.store.scoping import due, owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import jobs

_COLUMNS: Final = [jobs.c[field.name] for field in fields(Job)]
_OCCUPIED: Final = and_(jobs.c.released_at.is_(None), jobs.c.attempt > 0)
_TRAINING: Final = jobs.c.started_at.is_not(None)
#: The projects that hold training slots; a table of its own name, since it is asked for inside other questions.
_other: Final = jobs.alias()
_TRAINING_PROJECTS: Final = (
    select(_other.c.project_id)
    .where(_other.c.released_at.is_(None), _other.c.attempt > 0, _other.c.started_at.is_not(None))
    .group_by(_other.c.project_id)
)
#: The queue of trainings, then that of validations; each first in, first out.
_QUEUE: Final = case((jobs.c.status == Status.QUEUED, 0), else_=1)
_ORDER: Final = (jobs.c.queued_at, jobs.c.created_at, jobs.c.id)
#: `domain.queue.waits` as SQL.
_WAITS: Final = and_(
    jobs.c.status.in_([Status.QUEUED, Status.VALIDATING_FILES]),
    jobs.c.desired == Desired.RUN,
    or_(
        jobs.c.status == Status.QUEUED,
        jobs.c.attempt == 0,
        jobs.c.released_at.is_not(None),
        jobs.c.token_sha256.is_(None),
    ),
)


def load(tx: Transaction, scope: Scope) -> Load:
    """Return how many slots are taken, in all and by the scope's jobs."""

    def n(what: ColumnElement[bool]) -> ColumnElement[int]:
        return func.coalesce(func.sum(case((what, 1), else_=0)), 0)

    own = owned(jobs, scope)
    counted = tx.execute(
        select(n(_TRAINING), n(and_(_TRAINING, own)), n(~_TRAINING), n(and_(~_TRAINING, own))).where(_OCCUPIED)
    ).one()
    return Load(*(int(number) for number in counted))


def place(tx: Transaction, scope: Scope, job_id: str, *, now: float, limits: Limits) -> tuple[Job, int] | None:
    """Return a job and how many have their turn before it, should it wait; None where the scope has no such job.

    Those in backoff and those of other projects at their limit are passed over, so they do not count.
    """
    row = tx.one(select(*_COLUMNS).where(jobs.c.id == job_id, owned(jobs, scope)))
    if row is None:
        return None
    job = _job(row)
    mine = tuple_(literal(job.queued_at), literal(job.created_at), literal(job.id))
    n_ahead: int = tx.execute(
        select(func.count())
        .select_from(jobs)
        .where(
            _WAITS,
            jobs.c.status == job.status,
            due(now),
            tuple_(*_ORDER) < mine,
            or_(jobs.c.project_id == job.project_id, ~_held(limits)),
        )
    ).scalar_one()
    return job, n_ahead


def page(
    tx: Transaction, scope: Scope, *, now: float, limits: Limits, after: str | None = None, limit: int = 20
) -> tuple[list[tuple[Job, int]], bool]:
    """Return the waiting jobs in order, each with how many have their turn before it, and whether there are more.

    Raises:
        InvalidRequest: `after` names no job of the scope.
    """
    counts = due(now)
    held = _held(limits)
    n_ahead = _n_before(and_(counts, ~held), _QUEUE)
    if _limited(limits):
        n_ahead += _n_before(and_(counts, held), _QUEUE, jobs.c.project_id)
    line = select(jobs.c.id, n_ahead.label("n_ahead")).where(_WAITS).subquery()
    query: Select[Any] = select(*_COLUMNS, line.c.n_ahead).join(line, line.c.id == jobs.c.id).where(owned(jobs, scope))
    if after is not None:
        passed = tx.execute(select(_QUEUE, *_ORDER).where(jobs.c.id == after, owned(jobs, scope))).one_or_none()
        if passed is None:
            raise InvalidRequest(f"There is no object with id '{after}' to list after.", param="after")
        query = query.where(tuple_(_QUEUE, *_ORDER) > tuple_(*(literal(value) for value in passed)))
    rows = tx.every(query.order_by(_QUEUE, *_ORDER).limit(limit + 1))
    aheads = [int(row.pop("n_ahead")) for row in rows]
    return list(zip(map(_job, rows[:limit]), aheads, strict=False)), len(rows) > limit


def _limited(limits: Limits) -> bool:
    return any(most is not None for most in (limits.training_slots_per_project, *limits.training_slots_of.values()))


def _held(limits: Limits) -> ColumnElement[bool]:
    """Return the condition that a job waits because its project is at its limit."""
    if not _limited(limits):
        return false()
    most: Any = literal(limits.training_slots_per_project, Integer)
    if limits.training_slots_of:
        own = {project_id: literal(slots, Integer) for project_id, slots in limits.training_slots_of.items()}
        most = case(own, value=_other.c.project_id, else_=most)
    full = _TRAINING_PROJECTS.having(func.count() >= most)
    return and_(jobs.c.status == Status.QUEUED, jobs.c.project_id.in_(full))


def _n_before(what: ColumnElement[bool], *partition: ColumnElement[Any]) -> ColumnElement[int]:
    """Return how many rows of the partition that are so stand before the row."""
    flag = case((what, 1), else_=0)
    return func.coalesce(func.sum(flag).over(partition_by=partition, order_by=_ORDER, rows=(None, -1)), 0)


def _job(row: dict[str, Any]) -> Job:
    row["status"], row["desired"] = Status(row["status"]), Desired(row["desired"])
    return Job(**row)
