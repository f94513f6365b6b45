"""Queries on what projects let go: their policies, and what of their rows is old and free; no bytes are looked at here."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, exists, insert, not_, or_, select, union

from tunesmith.domain.file import File
from tunesmith.domain.job import Checkpoint
from tunesmith.domain.results import PURPOSE
from tunesmith.domain.retention import KINDS, Policy, Rule
from tunesmith.domain.scope import Project, Scope
from tunesmith.domain.states import TERMINAL
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import aliases, checkpoints, files, jobs, tuned_models, uploads
from tunesmith.store.tables_recordings import recordings
from tunesmith.store.tables_sharing import checkpoint_permissions as permissions
from tunesmith.store.tables_sharing import retention_policies as policies

#: An ended job whose last attempt is known to be gone: nothing reads or writes its bytes any more.
_AT_REST: Final = and_(jobs.c.status.in_(list(TERMINAL)), or_(jobs.c.attempt == 0, jobs.c.released_at.is_not(None)))


@dataclass(frozen=True, slots=True)
class Listed:
    """A listed checkpoint of a job at rest."""

    checkpoint: Checkpoint
    method: str
    #: The name of the job's result.
    final: str | None
    #: It has an alias, other projects may use it, or something stands on it.
    pinned: bool


@dataclass(frozen=True, slots=True)
class Named:
    """What of the blob store is named by rows."""

    files: frozenset[str]
    uploads: frozenset[str]
    #: Ids of jobs; those at rest apart.
    jobs: frozenset[str]
    at_rest: frozenset[str]
    #: Folders of checkpoints.
    checkpoints: frozenset[str]


def put(tx: Transaction, scope: Project, policy: Policy) -> None:
    """Give a project a policy in place of the one that it has.

    Raises:
        ValueError: the policy is not of the scope.
    """
    if policy.project_id != scope.project_id:
        raise ValueError(f"a policy of {policy.project_id} is not of {scope.project_id}")
    tx.execute(delete(policies).where(owned(policies, scope)))
    row = {"project_id": policy.project_id, "updated_at": tx.clock.now(), "rules": policy.rules()}
    tx.execute(insert(policies).values(**row))


def every(tx: Transaction, scope: Scope) -> list[Policy]:
    """Return the policies of the projects that have one."""
    rows = tx.every(select(policies).where(owned(policies, scope)).order_by(policies.c.project_id))
    return [Policy(row["project_id"], **{kind: Rule(**row["rules"].get(kind, {})) for kind in KINDS}) for row in rows]


def old_files(tx: Transaction, scope: Scope, *, results: bool, before: float, limit: int) -> list[File]:
    """Return files that are older, results or others, and that no unfinished job uses; the oldest first."""
    using = exists().where(
        jobs.c.project_id == files.c.project_id,
        not_(_AT_REST),
        or_(jobs.c.training_file == files.c.id, jobs.c.validation_file == files.c.id),
    )
    query = select(*(files.c[field.name] for field in fields(File))).where(
        owned(files, scope),
        files.c.deleted_at.is_(None),
        files.c.created_at <= before,
        files.c.purpose == PURPOSE if results else files.c.purpose != PURPOSE,
        ~using,
    )
    return [File(**row) for row in tx.every(query.order_by(files.c.created_at, files.c.id).limit(limit))]


def _stood_on() -> ColumnElement[bool]:
    """Return the condition that a job of any project needs the adapter that it started from."""
    has_model = exists().where(tuned_models.c.job_id == jobs.c.id)
    return and_(jobs.c.start_adapter.is_not(None), or_(not_(_AT_REST), has_model))


def listed(tx: Transaction, scope: Scope, ids: Collection[str] | None = None) -> list[Listed]:
    """Return the listed checkpoints of the jobs at rest; with `ids` those of them alone."""
    pinned = or_(
        checkpoints.c.model_name.in_(select(aliases.c.model)),
        checkpoints.c.model_name.in_(select(permissions.c.model)),
        checkpoints.c.key.in_(select(jobs.c.start_adapter).where(_stood_on())),
    )
    columns = [checkpoints.c[field.name] for field in fields(Checkpoint)]
    query = (
        select(*columns, jobs.c.method, jobs.c.fine_tuned_model.label("final"), pinned.label("pinned"))
        .join(jobs, jobs.c.id == checkpoints.c.job_id)
        .where(owned(checkpoints, scope), checkpoints.c.kept, _AT_REST)
        .order_by(checkpoints.c.job_id, checkpoints.c.step)
    )
    if ids is not None:
        query = query.where(checkpoints.c.id.in_(list(ids)))
    found: list[Listed] = []
    for row in tx.every(query):
        beside: dict[str, Any] = {name: row.pop(name) for name in ("method", "final", "pinned")}
        found.append(Listed(Checkpoint(**row), beside["method"], beside["final"], pinned=bool(beside["pinned"])))
    return found


def sampled(tx: Transaction, scope: Scope, *, before: float) -> list[tuple[str, int]]:
    """Return the jobs at rest that sampled, and ended before, with the number of their last attempt."""
    here = (owned(jobs, scope), _AT_REST, jobs.c.method == "reinforcement", jobs.c.finished_at <= before)
    return [(row["id"], row["attempt"]) for row in tx.every(select(jobs.c.id, jobs.c.attempt).where(*here))]


def recorded(tx: Transaction, scope: Scope, *, before: float) -> list[tuple[str, int, str]]:
    """Return what jobs at rest that ended before were told to, and are told no more: job, place, kind of tracker."""
    query = (
        select(recordings.c.job_id, recordings.c.place, recordings.c.kind)
        .join(jobs, jobs.c.id == recordings.c.job_id)
        .where(owned(recordings, scope), recordings.c.status.in_(["finished", "given_up"]))
        .where(_AT_REST, jobs.c.finished_at <= before)
        .order_by(recordings.c.job_id, recordings.c.place)
    )
    return [(row["job_id"], row["place"], row["kind"]) for row in tx.every(query)]


def named(tx: Transaction, scope: Scope) -> Named:
    """Return what rows name; what those of everywhere do not name is nobody's."""
    job_rows = tx.every(select(jobs.c.id, _AT_REST.label("at_rest")).where(owned(jobs, scope)))
    folders = union(
        select(checkpoints.c.key).where(owned(checkpoints, scope), checkpoints.c.kept),
        select(tuned_models.c.adapter_key).where(owned(tuned_models, scope)),
        select(jobs.c.start_adapter).where(owned(jobs, scope), _stood_on()),
    )
    return Named(
        files=frozenset(row["key"] for row in tx.every(select(files.c.key).where(owned(files, scope)))),
        uploads=frozenset(
            row["id"] for row in tx.every(select(uploads.c.id).where(owned(uploads, scope), uploads.c.has_parts))
        ),
        jobs=frozenset(row["id"] for row in job_rows),
        at_rest=frozenset(row["id"] for row in job_rows if row["at_rest"]),
        checkpoints=frozenset(tx.connection.execute(folders).scalars()),
    )
