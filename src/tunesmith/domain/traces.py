"""What is traced, and the port that it is told to: a request while it is served, and a job once its life is over."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Protocol

from tunesmith.domain.job import Job
from tunesmith.domain.states import Status

Attributes = Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Work:
    """What an attempt told: when for the first and for the last time, and of how many steps."""

    attempt: int
    first_at: float
    last_at: float
    n_steps: int


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took its time."""

    name: str
    start: float
    end: float
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Life:
    """A job's whole life, and the phases that it had."""

    job_id: str
    whole: Span
    phases: Sequence[Span]
    #: Why it failed, where it did.
    error: str | None


def life(job: Job, works: Sequence[Work]) -> Life:
    """Return the life of a job that has ended; what an attempt did before the first word of it belongs to the queue."""
    assert job.finished_at is not None
    end = job.finished_at
    trained = [work for work in works if work.n_steps]
    queued_at, started_at = job.queued_at or job.created_at, job.started_at
    phases = [Span("validate", job.created_at, max(job.created_at, queued_at if started_at is not None else end), {})]
    if started_at is not None:
        phases.append(Span("queue", queued_at, max(queued_at, started_at), {}))
    for work in trained:
        took_s = work.last_at - work.first_at
        steps = {"tunesmith.steps": work.n_steps, "tunesmith.step_seconds": took_s / work.n_steps}
        phases.append(Span("train", work.first_at, work.last_at, {"tunesmith.attempt": work.attempt, **steps}))
    if job.status is Status.SUCCEEDED and trained:
        phases.append(Span("publish", trained[-1].last_at, max(trained[-1].last_at, end), {}))
    attributes: dict[str, str | int | float] = {
        "tunesmith.job": job.id,
        "tunesmith.project": job.project_id,
        "tunesmith.method": job.method,
        "tunesmith.base": job.base,
        "tunesmith.status": str(job.status),
        "tunesmith.trained_tokens": job.trained_tokens or 0,
    }
    error = None if job.error is None else str(job.error.get("message"))
    return Life(job.id, Span("fine_tuning.job", job.created_at, end, attributes), phases, error)


class Traces(Protocol):
    """Where traces are told. None waits for whoever collects them."""

    def request(
        self, method: str, headers: Mapping[str, str], *, job_id: str | None
    ) -> AbstractContextManager[Callable[[str, int], None]]:
        """Trace a request while it is served, as part of what its headers tell; yield what takes its route and status."""
        ...

    def job(self, life: Life) -> None:
        """Trace a job, whose life is one trace with an identity of its own."""
        ...

    def close(self) -> None:
        """Send what is not sent yet, if that takes no time."""
        ...


class Untraced:
    """Traces that nobody collects."""

    def request(
        self, method: str, headers: Mapping[str, str], *, job_id: str | None
    ) -> AbstractContextManager[Callable[[str, int], None]]:
        """Trace nothing."""
        del method, headers, job_id
        return nullcontext(_forget)

    def job(self, life: Life) -> None:
        """Trace nothing."""

    def close(self) -> None:
        """Do nothing."""


def _forget(route: str, status: int) -> None:
    """Take a request's end."""


UNTRACED: Final = Untraced()
