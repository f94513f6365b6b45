"""The queue, pure: which jobs wait, what each of them waits for, and how that is said."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tunesmith.domain.job import Job
from tunesmith.domain.states import TERMINAL, Desired, Status

#: The longest wait before a lost job's next start. A later time is one of a clock since set back.
LONGEST_BACKOFF_S: Final = 60.0


class Reason(StrEnum):
    """What a job waits for, spelt as on the wire."""

    TRAINING_SLOTS = "training_slots"
    PROJECT_LIMIT = "project_limit"
    VALIDATION_SLOTS = "validation_slots"
    BACKOFF = "backoff"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings allow."""

    training_slots: int
    validation_slots: int
    max_attempts: int
    #: None: no limit beside `training_slots`.
    training_slots_per_project: int | None = None
    #: The same for projects that have a limit of their own.
    training_slots_of: Mapping[str, int | None] = field(default_factory=dict[str, int | None])

    def of_project(self, project_id: str) -> int | None:
        """Return how many trainings a project may have at the same time."""
        return self.training_slots_of.get(project_id, self.training_slots_per_project)


@dataclass(frozen=True, slots=True)
class Load:
    """How many slots are taken: in all, and by the jobs of one project."""

    training: int
    training_of_project: int
    validating: int
    validating_of_project: int


@dataclass(frozen=True, slots=True)
class Place:
    """A job's place in the queue at one moment."""

    job: Job
    #: Jobs whose turn comes before, of every project; None for a job that does not wait.
    n_ahead: int | None
    reason: Reason | None
    message: str
    #: Earliest time of the next attempt, None once it is past.
    not_before: float | None


def in_backoff(job: Job, now: float) -> bool:
    """Say whether the time of the job's next attempt is still to come."""
    return now < job.not_before <= now + LONGEST_BACKOFF_S


def waits(job: Job) -> bool:
    """Say whether the job waits for an attempt; a validation that was paused waits although its last one is not yet gone."""
    if job.desired is not Desired.RUN:
        return False
    at_work = job.attempt > 0 and job.released_at is None and job.token_sha256 is not None
    return job.status is Status.QUEUED or (job.status is Status.VALIDATING_FILES and not at_work)


def reason(job: Job, load: Load, limits: Limits, now: float) -> Reason | None:
    """Return what a job that waits is waiting for; None for one that starts as soon as it is looked at."""
    if in_backoff(job, now):
        return Reason.BACKOFF
    if job.status is Status.VALIDATING_FILES:
        return Reason.VALIDATION_SLOTS if load.validating >= limits.validation_slots else None
    # the project's own limit comes first: waiting for others' jobs to end would not help
    most = limits.of_project(job.project_id)
    if most is not None and load.training_of_project >= most:
        return Reason.PROJECT_LIMIT
    return Reason.TRAINING_SLOTS if load.training >= limits.training_slots else None


def place(job: Job, n_ahead: int, load: Load, limits: Limits, now: float) -> Place:
    """Return the place of a job that stands behind `n_ahead` others, should it wait."""
    not_before = job.not_before if in_backoff(job, now) and job.status not in TERMINAL else None
    if not waits(job):
        return Place(job, None, None, _state(job), not_before)
    why = reason(job, load, limits, now)
    text = sentence(job, why, n_ahead, limits, now)
    return Place(job, n_ahead, why, f"{text[0].upper()}{text[1:]}.", not_before)


def sentence(job: Job, why: Reason | None, n_ahead: int, limits: Limits, now: float) -> str:
    """Return why the job waits and behind how many, as a sentence without its capital and its full stop."""
    match why:
        case Reason.BACKOFF:
            wait_s = max(1, math.ceil(job.not_before - now))
            cause = f"its last worker was lost, and it starts again in {wait_s} s at the earliest"
        case Reason.PROJECT_LIMIT:
            cause = f"its project has {_many(limits.of_project(job.project_id) or 0, 'running job')}, its limit"
        case Reason.TRAINING_SLOTS:
            cause = _all_in_use(limits.training_slots, "training slot")
        case Reason.VALIDATION_SLOTS:
            cause = _all_in_use(limits.validation_slots, "validation slot")
        case None:
            cause = "it starts as soon as its turn has come and nothing of its last attempt is left"
    ahead = "no job is" if n_ahead == 0 else f"{_many(n_ahead, 'job')} {'is' if n_ahead == 1 else 'are'}"
    return f"{cause}; {ahead} before it"


def _all_in_use(n_slots: int, what: str) -> str:
    return f"the only {what} is in use" if n_slots == 1 else f"all {n_slots} {what}s are in use"


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _state(job: Job) -> str:
    match job.status:
        case Status.VALIDATING_FILES:
            return "Its files are being validated."
        case Status.PAUSED:
            return "The job is paused and has no place in the queue until it is resumed."
        case Status.RUNNING:
            return "The job is running."
        case Status.CANCELLED:
            return "The job was cancelled."
        case _:
            return f"The job has {job.status}."
