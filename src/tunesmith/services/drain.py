"""Pausing whatever runs before the server ends, and resuming just that when it is back."""

import threading
from typing import Final

import structlog

from tunesmith.core.clock import Clock
from tunesmith.core.errors import JobNotFound, StateConflict
from tunesmith.domain.job import Job
from tunesmith.domain.reconcile import PAUSE_GRACE_S
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.domain.states import Desired, Status
from tunesmith.services.pauses import Pauses
from tunesmith.services.scheduler import Scheduler
from tunesmith.store import jobs
from tunesmith.store.session import Database

log = structlog.get_logger()

_SCOPE: Final = Everywhere("a server that ends pauses every project's jobs")
#: Between looks at what has not paused yet, and how long they go on: the grace of a pause, and its kill.
LOOK_S: Final = 0.1
LONGEST_S: Final = PAUSE_GRACE_S + 5.0


class Drain:
    """The server's own pauses."""

    def __init__(self, *, db: Database, pauses: Pauses, scheduler: Scheduler, clock: Clock) -> None:
        self._db = db
        self._pauses = pauses
        self._scheduler = scheduler
        self._clock = clock

    def run(self, hurry: threading.Event) -> None:
        """Start nothing more, pause what runs and wait until it rests; `hurry` ends the waiting, and the jobs run on."""
        self._scheduler.start_no_more()
        for job in self._occupying():
            if job.status in (Status.RUNNING, Status.VALIDATING_FILES) and job.desired is Desired.RUN:
                self._pause(job)
        end = self._clock.monotonic() + LONGEST_S
        told = -1
        while (n_left := len(self._occupying())) and self._clock.monotonic() < end and not hurry.wait(LOOK_S):
            if n_left != told:
                log.info("server.draining", n_jobs=n_left)
                told = n_left

    def undo(self) -> None:
        """Resume what an earlier server paused for its own end."""
        with self._db.read() as tx:
            resting = jobs.drained(tx, _SCOPE)
        for job in resting:
            try:
                self._pauses.resume(Project(job.project_id, job.organization_id), job.id, by_server=True)
            except (JobNotFound, StateConflict) as gone:
                log.info("job.resume", job=job.id, refused=str(gone))

    def _pause(self, job: Job) -> None:
        try:
            self._pauses.ask(Project(job.project_id, job.organization_id), job.id, drained=True)
        except (JobNotFound, StateConflict) as gone:
            log.info("job.pause", job=job.id, refused=str(gone))

    def _occupying(self) -> list[Job]:
        with self._db.read() as tx:
            return jobs.occupied(tx, _SCOPE)
