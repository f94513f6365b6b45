"""A job's life, told to whoever collects traces once it is over."""

from dataclasses import dataclass
from typing import Final

from tunesmith.domain.scope import Everywhere
from tunesmith.domain.traces import UNTRACED, Traces, life
from tunesmith.store import figures, jobs
from tunesmith.store.session import Database

_SCOPE: Final = Everywhere("an operator traces every project's jobs")


@dataclass(frozen=True, slots=True)
class Tracing:
    """Finds what there is to tell of a job."""

    db: Database
    traces: Traces

    def told(self, job_id: str) -> None:
        """Tell of a job that has ended."""
        if self.traces is UNTRACED:
            return
        with self.db.read() as tx:
            job = jobs.get(tx, _SCOPE, job_id)
            works = figures.of_attempts(tx, _SCOPE, job_id)
        if job is not None and job.finished_at is not None:
            self.traces.job(life(job, works))
