"""The queue as its owners see it: what a job waits for, behind how many, and all that wait in a project."""

from tunesmith.core.clock import Clock
from tunesmith.core.errors import JobNotFound
from tunesmith.core.settings import Settings
from tunesmith.domain.queue import Limits, Load, Place, place
from tunesmith.domain.scope import Project
from tunesmith.store import queue
from tunesmith.store.session import Database


class Queue:
    """The waiting jobs of a project, among those of all the others."""

    def __init__(self, *, db: Database, clock: Clock, settings: Settings) -> None:
        self._db = db
        self._clock = clock
        self.limits = limits(settings)

    def get(self, scope: Project, job_id: str) -> Place:
        """Return a job's place in the queue; one that does not wait has none.

        Raises:
            JobNotFound: the project has none of this id.
        """
        now = self._clock.now()
        with self._db.read() as tx:
            found = queue.place(tx, scope, job_id, now=now, per_project=self.limits.training_slots_per_project)
            if found is None:
                raise JobNotFound(job_id)
            load = queue.load(tx, scope)
        return place(*found, load, self.limits, now)

    def page(self, scope: Project, *, after: str | None = None, limit: int = 20) -> tuple[list[Place], bool, Load]:
        """Return the jobs that wait, those for training first, in order; whether there are more; and the slots taken."""
        now = self._clock.now()
        per_project = self.limits.training_slots_per_project
        with self._db.read() as tx:
            found, more = queue.page(tx, scope, now=now, per_project=per_project, after=after, limit=limit)
            load = queue.load(tx, scope)
        return [place(job, n_ahead, load, self.limits, now) for job, n_ahead in found], more, load


def limits(settings: Settings) -> Limits:
    """Return what the settings allow."""
    return Limits(
        training_slots=settings.training_slots,
        validation_slots=settings.validation_slots,
        max_attempts=settings.max_attempts,
        training_slots_per_project=settings.training_slots_per_project,
    )
