"""Queries on events: numbered without gaps, each idempotency key once."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import insert, select, update

from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.job import Event, NewEvent
from tunesmith.domain.scope import Scope
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import events, jobs

_ROWS: Final = select(events)


def _event(row: dict[str, Any]) -> Event:
    return Event(**row)


def append(tx: Transaction, scope: Scope, job_id: str, attempt: int, new: Sequence[NewEvent]) -> list[Event]:
    """Append events to a job's stream and return those that were not there yet; a known key is skipped."""
    if not new:
        return []
    # The row's lock (PostgreSQL) makes two appenders wait for one another before either looks for known keys.
    owner = tx.execute(
        select(jobs.c.project_id).where(jobs.c.id == job_id, owned(jobs, scope)).with_for_update()
    ).one_or_none()
    if owner is None:
        return []
    keys = [event.idempotency_key for event in new]
    known = set(
        tx.execute(
            select(events.c.idempotency_key).where(
                owned(events, scope), events.c.job_id == job_id, events.c.idempotency_key.in_(keys)
            )
        ).scalars()
    )
    fresh = list({event.idempotency_key: event for event in reversed(new)}.values())[::-1]
    fresh = [event for event in fresh if event.idempotency_key not in known]
    if not fresh:
        return []
    end: int = tx.execute(
        update(jobs)
        .where(jobs.c.id == job_id, owned(jobs, scope))
        .values(next_seq=jobs.c.next_seq + len(fresh))
        .returning(jobs.c.next_seq)
    ).scalar_one()
    now = tx.clock.now()
    stored = [
        Event(
            id=tx.ids.event(),
            job_id=job_id,
            project_id=owner.project_id,
            seq=seq,
            attempt=attempt,
            idempotency_key=event.idempotency_key,
            created_at=event.created_at if event.created_at is not None else now,
            level=event.level,
            message=event.message,
            type=event.type,
            data=event.data,
        )
        for seq, event in enumerate(fresh, start=end - len(fresh))
    ]
    tx.execute(insert(events), [asdict(event) for event in stored])
    return stored


def page(
    tx: Transaction, scope: Scope, job_id: str, *, after: str | None = None, limit: int = 20
) -> tuple[list[Event], bool]:
    """Return a job's events, newest first, and whether there are more.

    Raises:
        InvalidRequest: `after` names no event of the job.
    """
    query = _ROWS.where(owned(events, scope), events.c.job_id == job_id)
    if after is not None:
        cursor = tx.execute(
            select(events.c.seq).where(owned(events, scope), events.c.job_id == job_id, events.c.id == after)
        ).scalar_one_or_none()
        if cursor is None:
            raise InvalidRequest(f"There is no event with id '{after}' in job {job_id} to list after.", param="after")
        query = query.where(events.c.seq < cursor)
    rows = tx.every(query.order_by(events.c.seq.desc()).limit(limit + 1))
    return [_event(row) for row in rows[:limit]], len(rows) > limit


def steps(tx: Transaction, scope: Scope, job_id: str, *, after: int, limit: int) -> list[Event]:
    """Return a job's metrics events past the one that is numbered `after`, in order."""
    query = _ROWS.where(owned(events, scope), events.c.job_id == job_id, events.c.seq > after)
    rows = tx.every(query.where(events.c.type == "metrics").order_by(events.c.seq).limit(limit))
    return [_event(row) for row in rows]
