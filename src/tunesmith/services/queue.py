"""The queue as its owners see it: what a job waits for, behind how many, and all that wait in a project."""

from tunesmith.core.clock import Clock
from tunesmith.core.errors import JobNotFound
from tunesmith.domain.queue import Limits as Allowed
from tunesmith.domain.queue import Load, Place, place
from tunesmith.domain.scope import Project
from tunesmith.services.limits import Limits
from tunesmith.store import queue
from tunesmith.store.session import Database


class Queue:
    """The waiting jobs of a project, among those of all the others."""

    def __init__(self, *, db: Database, clock: Clock, limits: Limits) -> None:
        self._db = db
        self._clock = clock
        self._limits = limits

    @property
    def limits(self) -> Allowed:
        """What may be done at the same time."""
        return self._limits.of_queue()

    def get(self, scope: Project, job_id: str) -> Place:
        """Return a job's place in the queue; one that does not wait has none.

        Raises:
            JobNotFound: the project has none of this id.
        """
        now, limits = self._clock.now(), self.limits
        with self._db.read() as tx:
            found = queue.place(tx, scope, job_id, now=now, limits=limits)
            if found is None:
                raise JobNotFound(job_id)
            load = queue.load(tx, scope)
        return place(*found, load, limits, now)

    def page(self, scope: Project, *, after: str | None = None, limit: int = 20) -> tuple[list[Place], bool, Load]:
        """Return the jobs that wait, those for training first, in order; whether there are more; and the slots taken."""
        now, limits = self._clock.now(), self.limits
        with self._db.read() as tx:
            found, more = queue.page(tx, scope, now=now, limits=limits, after=after, limit=limit)
            load = queue.load(tx, scope)
        return [place(job, n_ahead, load, limits, now) for job, n_ahead in found], more, load
