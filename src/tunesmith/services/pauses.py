"""Pausing and resuming jobs: a job that waits rests at once, one that trains once its checkpoint is complete."""

from typing import Any, Final

import structlog
from anyio import sleep, to_thread

from tunesmith.core.clock import Clock
from tunesmith.core.errors import JobNotFound, StateConflict
from tunesmith.core.failpoint import failpoint
from tunesmith.domain import events as wording
from tunesmith.domain.job import Job, NewEvent
from tunesmith.domain.scope import Project
from tunesmith.domain.states import TERMINAL, Desired, Status
from tunesmith.services.jobs import Jobs, Wake
from tunesmith.store import audit, events, jobs
from tunesmith.store.session import Database, Transaction

#: How long the answer to a pause waits for the checkpoint.
ANSWER_S: Final = 5.0
#: Between looks at a job that is about to pause: at first, and at the longest, since many may be waited for at once.
LOOK_S: Final = 0.02
LONGEST_LOOK_S: Final = 0.25
#: Of the audit log, for pauses that the server asks for by itself and for their ends.
PAUSED: Final = "job.pause_requested"
RESUMED: Final = "job.resumed"

log = structlog.get_logger()


class Pauses:
    """What `pause` and `resume` of a project's jobs do."""

    def __init__(self, *, db: Database, jobs: Jobs, clock: Clock, on_change: Wake) -> None:
        self._db = db
        self._jobs = jobs
        self._clock = clock
        self._on_change = on_change

    async def pause(self, scope: Project, job_id: str) -> Job:
        """Ask for a pause and wait a little for it; the job that is returned may still be running, or even have ended.

        Raises:
            JobNotFound: the project has none of this id.
            StateConflict: it has ended.
        """
        job = await to_thread.run_sync(self.ask, scope, job_id)
        end = self._clock.monotonic() + ANSWER_S
        look_s = LOOK_S
        while _is_pausing(job) and self._clock.monotonic() < end:
            await sleep(look_s)
            look_s = min(LONGEST_LOOK_S, look_s * 1.5)
            job = await to_thread.run_sync(self._jobs.get, scope, job_id)
        return job

    def ask(self, scope: Project, job_id: str, *, drained: bool = False) -> Job:
        """Pause a job that waits or validates, and ask one that trains to pause; raises as `pause` does.

        A job that is paused, or asked to pause, is returned as it is. With `drained` the pause is the server's own.
        """
        with self._db.begin(urgent=True) as tx:
            job = _locked(tx, scope, job_id)
            if job.status in TERMINAL:
                raise StateConflict(f"Job {job.id} {_state(job)}, so it cannot be paused.")
            if job.status is Status.PAUSED or _is_pausing(job):
                return job
            asked = _asked(tx, scope, job, drained=drained)
            if drained:
                audit.tell(tx, scope, PAUSED, job.project_id, [job.id])
            failpoint("pauses.ask")
        log.info("job.pause", job=job.id, was=str(job.status), attempt=job.attempt)
        if asked.attempt != job.attempt:
            self._jobs.stop([asked])
        else:
            self._on_change()
        return asked

    def resume(self, scope: Project, job_id: str, *, by_server: bool = False) -> Job:
        """Let a paused job wait for its turn again; a pause that is still under way is withdrawn.

        Raises:
            JobNotFound: the project has none of this id.
            StateConflict: it is not paused.
        """
        with self._db.begin() as tx:
            job = _locked(tx, scope, job_id)
            if job.status is not Status.PAUSED and not _is_pausing(job):
                raise StateConflict(f"Job {job.id} {_state(job)}, so it cannot be resumed: only a paused job can.")
            resumed = _resumed(tx, scope, job, self._clock.now())
            if by_server:
                audit.tell(tx, scope, RESUMED, job.project_id, [job.id])
            failpoint("pauses.resume")
        log.info("job.resume", job=job.id, was=str(job.status), attempt=job.attempt)
        self._on_change()
        return resumed


def _is_pausing(job: Job) -> bool:
    return job.status is Status.RUNNING and job.desired is Desired.PAUSE


def _state(job: Job) -> str:
    if job.status is Status.CANCELLED:
        return "was cancelled"
    return f"has already {job.status}" if job.status in TERMINAL else f"is {job.status}"


def _asked(tx: Transaction, scope: Project, job: Job, *, drained: bool) -> Job:
    if job.status is Status.RUNNING:
        asked = _moved(tx, scope, job, desired=Desired.PAUSE, drained=drained)
        return _told(tx, scope, asked, wording.pause_requested(asked.version, by_server=drained))
    changes: dict[str, Any] = {}
    if job.status is Status.VALIDATING_FILES and job.attempt > 0 and job.released_at is None:
        # whatever it still says is refused, also once the job validates anew, while its processes are not gone
        changes = {"fence": True, "token_sha256": None}
    asked = _moved(tx, scope, job, status=Status.PAUSED, desired=Desired.PAUSE, drained=drained, **changes)
    return _told(tx, scope, asked, wording.paused(asked.version, None))


def _resumed(tx: Transaction, scope: Project, job: Job, now: float) -> Job:
    if job.status is Status.RUNNING:
        resumed = _moved(tx, scope, job, desired=Desired.RUN, drained=False)
        return _told(tx, scope, resumed, wording.pause_withdrawn(resumed.version))
    status = Status.VALIDATING_FILES if job.resolved is None else Status.QUEUED
    queued_at = job.queued_at if job.drained else now  # who did not ask for the pause does not lose the place
    turn: dict[str, Any] = {"status": status, "queued_at": queued_at, "waiting_for": None, "not_before": 0.0}
    resumed = _moved(tx, scope, job, desired=Desired.RUN, drained=False, **turn)
    return _told(tx, scope, resumed, wording.resumed(resumed.version))


def _locked(tx: Transaction, scope: Project, job_id: str) -> Job:
    job = jobs.get(tx, scope, job_id, lock=True)
    if job is None:
        raise JobNotFound(job_id)
    return job


def _moved(tx: Transaction, scope: Project, job: Job, **changes: Any) -> Job:
    """Change a row that is locked in this transaction, so that nobody can have been first."""
    moved = jobs.swap(tx, scope, job.id, expect_status={job.status}, expect_attempt=job.attempt, **changes)
    assert moved is not None
    return moved


def _told(tx: Transaction, scope: Project, job: Job, event: NewEvent) -> Job:
    events.append(tx, scope, job.id, job.attempt, [event])
    return job
