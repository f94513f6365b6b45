"""A job's checkpoints: published under a name each, the newest or best kept, the others dropped; inside a transaction."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from tunesmith.core.channel import PAUSED, Report
from tunesmith.domain.job import Checkpoint, Job
from tunesmith.domain.model import TunedModel
from tunesmith.domain.scope import Everywhere, Project, Scope
from tunesmith.store import checkpoints, jobs, models, permissions
from tunesmith.store.session import Transaction

#: Of those that training makes by itself; one that a pause asked for stays beside them.
KEPT: Final = 3
_ALL: Final = 10_000
_EVERYWHERE: Final = Everywhere("what another project uses stays")


def publish(tx: Transaction, job: Job, report: Report, name: str, *, step: int | None) -> None:
    """List the checkpoint that a report tells of, usable as the model `name`; `step` is None for the final one."""
    data = report.data
    checkpoint = Checkpoint(
        id=tx.ids.checkpoint(),
        job_id=job.id,
        project_id=job.project_id,
        created_at=report.created_at,
        step=int(data["step"]),
        model_name=name,
        key=data["key"],
        sha256=data["sha256"],
        metrics=_figures(job, report),
        by_pause=report.kind == PAUSED,
    )
    model = TunedModel(
        name=name,
        project_id=job.project_id,
        organization_id=job.organization_id,
        job_id=job.id,
        base=job.base,
        created_at=report.created_at,
        adapter_key=data["key"],
        sha256=data["sha256"],
        pins=job.pins,
        step=step,
    )
    checkpoints.add(tx, _scope(job), checkpoint)
    models.add(tx, _scope(job), model)


def measured(tx: Transaction, job: Job, checkpoint: Checkpoint, report: Report) -> None:
    """Give a listed checkpoint the figures of a later report of its step."""
    checkpoints.measure(tx, _scope(job), checkpoint.id, _figures(job, report))


def listed(tx: Transaction, job: Job) -> list[Checkpoint]:
    """Return the listed checkpoints, newest first."""
    found, _ = checkpoints.page(tx, _scope(job), job.id, limit=_ALL)
    return found


def retain(tx: Transaction, job: Job) -> list[Checkpoint]:
    """Drop the listed checkpoints that are not to be kept beside the newest, and return them.

    One that an unfinished job starts from stays as long as that job needs it; one that a pause asked for, that has an alias
    or that another project may use stays.
    """
    regular = [checkpoint for checkpoint in listed(tx, job) if not checkpoint.by_pause]
    kept = {checkpoint.id for checkpoint in _kept(job.method, regular)}
    dropped = [checkpoint for checkpoint in regular if checkpoint.id not in kept and not _needed(tx, job, checkpoint)]
    for checkpoint in dropped:
        drop(tx, job, checkpoint)
    return [replace(checkpoint, kept=False) for checkpoint in dropped]


def _kept(method: str, newest_first: Sequence[Checkpoint]) -> Sequence[Checkpoint]:
    """Return the newest, or those of the highest reward and the newest one, from which an unfinished job goes on."""
    if method != "reinforcement":
        return newest_first[:KEPT]
    best_first = sorted(newest_first, key=_reward, reverse=True)  # stable: of equal ones the newer is before the older
    return [*best_first[:KEPT], *newest_first[:1]]


def _figures(job: Job, report: Report) -> dict[str, Any]:
    return {"step": int(report.data["step"]), **report.data["metrics"], "type": job.method}


def _reward(checkpoint: Checkpoint) -> float:
    """Return the mean reward on the validation file; one that was never measured is behind all others."""
    reward = checkpoint.metrics.get("valid_reward_mean")
    return -math.inf if reward is None else float(reward)


def drop(tx: Transaction, job: Job, checkpoint: Checkpoint) -> None:
    """Take a checkpoint and its model off the lists."""
    checkpoints.drop(tx, _scope(job), checkpoint.id)
    models.delete(tx, _scope(job), checkpoint.model_name)


def _needed(tx: Transaction, job: Job, checkpoint: Checkpoint) -> bool:
    models.get(tx, _scope(job), checkpoint.model_name, lock=True)  # whoever creates a job from it now goes first, or fails
    aliased = any(alias.model == checkpoint.model_name for alias in models.aliases(tx, _scope(job)))
    shared = permissions.of(tx, _EVERYWHERE, checkpoint.model_name)
    return aliased or bool(shared) or bool(jobs.starting_from(tx, _EVERYWHERE, checkpoint.key))


def _scope(job: Job) -> Scope:
    return Project(job.project_id, job.organization_id)
