"""Queries on how fast runs that ended well were, for estimates of those to come."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import select

from tunesmith.domain.estimate import Pace
from tunesmith.domain.scope import Scope
from tunesmith.domain.states import Status
from tunesmith.methods.auto import group_size
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import events, jobs

_COLUMNS: Final = [
    jobs.c[name] for name in ("id", "pins", "counts", "resolved", "trained_tokens", "started_at", "finished_at")
]


def recent(
    tx: Transaction, scope: Scope, *, base: str, pins: Mapping[str, str], method: str, since: float, limit: int = 10
) -> list[Pace]:
    """Return the newest runs of a method on a base that took one attempt and were never paused, newest first."""
    query = (
        select(*_COLUMNS)
        .where(
            owned(jobs, scope),
            jobs.c.status == Status.SUCCEEDED,
            jobs.c.created_at >= since,
            jobs.c.base == base,
            jobs.c.method == method,
            # the first is its validation's
            jobs.c.attempt <= 2,
        )
        .order_by(jobs.c.created_at.desc())
        .limit(limit)
    )
    rows = [row for row in tx.every(query) if row["pins"] == pins and row["counts"] and row["resolved"]]
    ends = {row["id"]: f"s{row['counts']['total_steps']}" for row in rows}
    times = tx.execute(
        select(events.c.job_id, events.c.idempotency_key, events.c.created_at).where(
            owned(events, scope), events.c.job_id.in_(ends), events.c.idempotency_key.in_({"s1", *ends.values()})
        )
    )
    at = {(time.job_id, time.idempotency_key): time.created_at for time in times}
    found: list[Pace] = []
    for row in rows:
        first, last = at.get((row["id"], "s1")), at.get((row["id"], ends[row["id"]]))
        if first is not None and last is not None:
            found.append(_pace(row, method, first, last))
    return found


def _pace(row: dict[str, Any], method: str, first: float, last: float) -> Pace:
    knobs = row["resolved"]
    samples = row["counts"]["n_examples"] * knobs["n_epochs"] * group_size(knobs.get("compute_multiplier", 1.0))
    return Pace(
        n_steps=row["counts"]["total_steps"],
        units=samples if method == "reinforcement" else row["trained_tokens"],
        trained_tokens=row["trained_tokens"],
        started_at=row["started_at"],
        first_step_at=first,
        last_step_at=last,
        finished_at=row["finished_at"],
    )
