"""Queries on jobs. Every change of a job is `swap`: one compare-and-set that tells its caller who won."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Select, and_, func, insert, literal, or_, select, tuple_, update

from tunesmith.domain.job import Job, NewEvent
from tunesmith.domain.scope import Scope
from tunesmith.domain.states import MOVES, TERMINAL, Desired, Status
from tunesmith.store import events as event_rows
from tunesmith.store.scoping import cursor, due, owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import job_metadata, jobs

_COLUMNS: Final = [jobs.c[field.name] for field in fields(Job)]
#: Built once, and of the table rather than of its columns: what is asked at every look shall not be put together anew.
_ROWS: Final = select(jobs)
#: How many jobs of a pair of metadata are counted to learn which of several is the rarest.
_N_COUNTED: Final = 1000
_QUEUE: Final = (jobs.c.queued_at, jobs.c.created_at, jobs.c.id)
_UNOCCUPIED: Final = or_(jobs.c.attempt == 0, jobs.c.released_at.is_not(None))


def _job(row: dict[str, Any]) -> Job:
    row["status"], row["desired"] = Status(row["status"]), Desired(row["desired"])
    return Job(**row)


def add(tx: Transaction, scope: Scope, job: Job, events: Sequence[NewEvent] = ()) -> Job:
    """Insert a job with its first events and return it as it is now.

    Raises:
        ValueError: the job is not of the scope.
    """
    project_id = getattr(scope, "project_id", job.project_id)
    if project_id != job.project_id:
        raise ValueError(f"job {job.id} is of {job.project_id}, not of {project_id}")
    tx.execute(insert(jobs).values(**asdict(job)))
    pairs = [
        {"job_id": job.id, "key": key, "project_id": job.project_id, "value": value, "created_at": job.created_at}
        for key, value in (job.metadata or {}).items()
    ]
    if pairs:
        tx.execute(insert(job_metadata), pairs)
    event_rows.append(tx, scope, job.id, job.attempt, events)
    stored = get(tx, scope, job.id)
    assert stored is not None
    return stored


def get(tx: Transaction, scope: Scope, job_id: str, *, lock: bool = False) -> Job | None:
    """Return a job, or None; with `lock` nobody else changes it until the transaction ends."""
    query = _ROWS.where(jobs.c.id == job_id, owned(jobs, scope))
    row = tx.one(query.with_for_update() if lock else query)
    return None if row is None else _job(row)


def page(
    tx: Transaction,
    scope: Scope,
    *,
    after: str | None = None,
    limit: int = 20,
    metadata: dict[str, str] | Literal["null"] | None = None,
) -> tuple[list[Job], bool]:
    """Return jobs, newest first, and whether there are more.

    `metadata` keeps the jobs that have all its pairs, or with `null` those that have none.

    Raises:
        InvalidRequest: `after` names no job of the scope.
    """
    query, position = _ROWS.where(owned(jobs, scope)), (jobs.c.created_at, jobs.c.id)
    if metadata == "null":
        query = query.where(jobs.c.metadata.is_(None))
    elif metadata:
        query, position = _with_pairs(tx, scope, metadata)
    if after is not None:
        query = query.where(tuple_(*position) < cursor(tx, scope, jobs, after))
    rows = tx.every(query.order_by(*(column.desc() for column in position)).limit(limit + 1))
    return [_job(row) for row in rows[:limit]], len(rows) > limit


def _with_pairs(
    tx: Transaction, scope: Scope, pairs: Mapping[str, str]
) -> tuple[Select[Any], tuple[ColumnElement[Any], ...]]:
    """Return the jobs that have all the pairs, and their order: a walk along the index of the rarest pair."""

    def has(key: str) -> ColumnElement[bool]:
        return and_(owned(job_metadata, scope), job_metadata.c.key == key, job_metadata.c.value == pairs[key])

    def n_jobs(key: str) -> int:
        counted = select(literal(1)).where(has(key)).limit(_N_COUNTED).subquery()
        return tx.execute(select(func.count()).select_from(counted)).scalar_one()

    rarest = min(pairs, key=n_jobs) if len(pairs) > 1 else next(iter(pairs))
    query = _ROWS.join_from(job_metadata, jobs, jobs.c.id == job_metadata.c.job_id).where(has(rarest))
    other = job_metadata.alias()
    for key in pairs:
        if key != rarest:
            own = select(literal(1)).where(
                other.c.job_id == job_metadata.c.job_id, other.c.key == key, other.c.value == pairs[key]
            )
            query = query.where(own.exists())
    return query, (job_metadata.c.created_at, job_metadata.c.job_id)


def swap(
    tx: Transaction,
    scope: Scope,
    job_id: str,
    *,
    expect_status: Collection[Status],
    expect_attempt: int | None = None,
    expect_desired: Desired | None = None,
    fence: bool = False,
    **changes: Any,
) -> Job | None:
    """Change a job if it is still as expected: one UPDATE. None means that somebody else was first: read the truth.

    `fence` raises the attempt, so that whatever the present one still sends is refused. A change of status that the table
    of moves does not know is lost like one that comes too late: nothing leaves a terminal status.
    """
    target = changes.get("status")
    expected = [status for status in expect_status if target in (None, status) or target in MOVES[status]]
    statement = update(jobs).where(jobs.c.id == job_id, owned(jobs, scope), jobs.c.status.in_(expected))
    if expect_attempt is not None:
        statement = statement.where(jobs.c.attempt == expect_attempt)
    if expect_desired is not None:
        statement = statement.where(jobs.c.desired == expect_desired)
    if fence:
        changes["attempt"] = jobs.c.attempt + 1
    statement = statement.values(**changes, version=jobs.c.version + 1).returning(*_COLUMNS)
    row = tx.one(statement)
    return None if row is None else _job(row)


def unfinished(tx: Transaction, scope: Scope) -> list[Job]:
    """Return the jobs that have not ended, oldest first."""
    query = _ROWS.where(owned(jobs, scope), jobs.c.status.not_in(list(TERMINAL)))
    return [_job(row) for row in tx.every(query.order_by(jobs.c.created_at, jobs.c.id))]


def occupied(tx: Transaction, scope: Scope, known: Mapping[str, Job] | None = None) -> list[Job]:
    """Return the jobs, of any status, whose last attempt is not yet known to be gone.

    A row that is still of the version in `known` (jobs by id) is not read again: whoever looks often looks cheaply.
    """
    here = (owned(jobs, scope), jobs.c.released_at.is_(None), jobs.c.attempt > 0)
    order = (jobs.c.created_at, jobs.c.id)
    if not known:
        return [_job(row) for row in tx.every(_ROWS.where(*here).order_by(*order))]
    versions = {row.id: row.version for row in tx.execute(select(jobs.c.id, jobs.c.version).where(*here).order_by(*order))}
    found = {job_id: job for job_id, job in known.items() if versions.get(job_id) == job.version}
    changed = [job_id for job_id in versions if job_id not in found]
    if changed:
        query = _ROWS.where(owned(jobs, scope), jobs.c.id.in_(changed))
        found |= {row["id"]: _job(row) for row in tx.every(query)}
    return [found[job_id] for job_id in versions]


def drained(tx: Transaction, scope: Scope) -> list[Job]:
    """Return the jobs that a server paused, or asked to pause, for its own end, in the order of the queue."""
    here = (owned(jobs, scope), jobs.c.status.in_((Status.PAUSED, Status.RUNNING)), jobs.c.drained)
    return [_job(row) for row in tx.every(_ROWS.where(*here).order_by(*_QUEUE))]


def waiting(
    tx: Transaction,
    scope: Scope,
    status: Status,
    *,
    now: float,
    limit: int,
    room: Callable[[str], int] | None = None,
) -> list[Job]:
    """Return the first jobs that wait in a status for an attempt: first in, first out.

    `room` says how many of a project are wanted, so that the first job of another is found behind a long backlog.
    """
    found: list[str] = []
    taken: Counter[str] = Counter()
    full: set[str] = set()
    query = (
        select(*_QUEUE, jobs.c.project_id)
        .where(owned(jobs, scope), jobs.c.status == status, jobs.c.desired == Desired.RUN, due(now), _UNOCCUPIED)
        .order_by(*_QUEUE)
    )
    while len(found) < limit:
        # a window function would sort the whole backlog; this is as many walks along the index as there are long backlogs
        n_wanted = limit - len(found)
        rows = tx.execute(query.where(jobs.c.project_id.not_in(sorted(full))).limit(n_wanted)).all()
        for row in rows:
            if room is None or taken[row.project_id] < room(row.project_id):
                found.append(row.id)
                taken[row.project_id] += 1
            else:
                full.add(row.project_id)
        if len(rows) < n_wanted:
            break
        query = query.where(tuple_(*_QUEUE) > tuple_(*(literal(value) for value in rows[-1][: len(_QUEUE)])))
    whole = tx.every(_ROWS.where(owned(jobs, scope), jobs.c.id.in_(found)).order_by(*_QUEUE)) if found else []
    return [_job(row) for row in whole]


def untold(tx: Transaction, scope: Scope, *, limit: int) -> list[Job]:
    """Return the first queued jobs whose events do not tell yet why they wait."""
    query = _ROWS.where(
        owned(jobs, scope),
        jobs.c.status == Status.QUEUED,
        jobs.c.waiting_for.is_(None),
        jobs.c.desired == Desired.RUN,
        _UNOCCUPIED,
    )
    return [_job(row) for row in tx.every(query.order_by(jobs.c.queued_at).limit(limit))]


def starting_from(tx: Transaction, scope: Scope, adapter_key: str) -> list[Job]:
    """Return the unfinished jobs that tune an adapter further, oldest first."""
    query = _ROWS.where(owned(jobs, scope), jobs.c.status.not_in(list(TERMINAL)), jobs.c.start_adapter == adapter_key)
    return [_job(row) for row in tx.every(query.order_by(jobs.c.created_at, jobs.c.id))]


def using_file(tx: Transaction, scope: Scope, file_id: str) -> list[Job]:
    """Return the unfinished jobs that train or validate on a file, oldest first."""
    query = _ROWS.where(
        owned(jobs, scope),
        jobs.c.status.not_in(list(TERMINAL)),
        or_(jobs.c.training_file == file_id, jobs.c.validation_file == file_id),
    )
    return [_job(row) for row in tx.every(query.order_by(jobs.c.created_at, jobs.c.id))]
