"""Attempts begun and ended from the server's side: claim, note the place, free the slot, requeue, give up."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import structlog

from tunesmith.core.channel import Task
from tunesmith.core.clock import Clock
from tunesmith.core.failpoint import failpoint
from tunesmith.core.ids import Ids
from tunesmith.domain import events as wording
from tunesmith.domain import reconcile
from tunesmith.domain.job import Job, NewEvent
from tunesmith.domain.ports import Handle
from tunesmith.domain.queue import Limits as Allowed
from tunesmith.domain.queue import sentence
from tunesmith.domain.scope import Everywhere, Project, Scope
from tunesmith.domain.sight import GONE, QUEUED
from tunesmith.domain.states import Desired, Status
from tunesmith.services.attempts import Attempts, token_sha256
from tunesmith.services.limits import Limits
from tunesmith.services.specs import Gone, Specs, newest_checkpoint
from tunesmith.store import events, jobs, models, queue
from tunesmith.store.session import Database, Transaction

log = structlog.get_logger()

_SCOPE: Final = Everywhere("the scheduler places every project's jobs")
#: The lease where another server could start the job of a worker that this one does not hear.
_LEASE_S: Final = 10.0


class Placement:
    """The scheduler's hands on the rows; each method is one commit."""

    def __init__(
        self,
        *,
        db: Database,
        attempts: Attempts,
        clock: Clock,
        ids: Ids,
        limits: Limits,
        blobs_url: str,
        socket: Path,
        on_train: Callable[[str], None] | None = None,
    ) -> None:
        self._db = db
        self._attempts = attempts
        self._clock = clock
        self._ids = ids
        self._settings = limits.settings
        self._specs = Specs(limits.settings, blobs_url)
        self._socket = socket
        #: The rows of the last look; they are read again only when their version has changed.
        self._seen: dict[str, Job] = {}
        self._on_train = on_train
        self._sight = attempts.sight
        self._limits = limits

    def limits(self) -> Allowed:
        """Return what may be done at the same time."""
        return self._limits.of_queue()

    def look(self, n_waiting: int) -> tuple[list[Job], list[Job], list[Job]]:
        """Return the occupied jobs, and the first `n_waiting` that wait for validation and for training."""
        now = self._clock.now()
        with self._db.read() as tx:
            occupied = jobs.occupied(tx, _SCOPE, self._seen)
            self._seen = {job.id: job for job in occupied}
            return (
                occupied,
                jobs.waiting(tx, _SCOPE, Status.VALIDATING_FILES, now=now, limit=n_waiting),
                self._to_train(tx, occupied, now, n_waiting),
            )

    def _to_train(self, tx: Transaction, occupied: list[Job], now: float, n_waiting: int) -> list[Job]:
        """Return the first that wait for training; of each project as many as it may start, or one that cannot."""
        allowed = self.limits()
        if allowed.training_slots_per_project is None and not allowed.training_slots_of:
            return jobs.waiting(tx, _SCOPE, Status.QUEUED, now=now, limit=n_waiting)
        n_of_project = reconcile.n_trainings(occupied)

        def room(project_id: str) -> int:
            most = allowed.of_project(project_id)
            return n_waiting if most is None else max(1, most - n_of_project[project_id])

        # no more projects than slots are at their limit, and of each of them one job may stand before those that can start
        return jobs.waiting(tx, _SCOPE, Status.QUEUED, now=now, limit=2 * n_waiting, room=room)

    def untold(self, limit: int) -> list[Job]:
        """Return the first queued jobs whose events do not tell yet why they wait."""
        with self._db.read() as tx:
            return jobs.untold(tx, _SCOPE, limit=limit)

    def tell(self, tell: reconcile.Tell) -> None:
        """Write down why a job waits, and behind how many."""
        now, allowed = self._clock.now(), self.limits()
        with self._db.read() as tx:
            found = queue.place(tx, _SCOPE, tell.job_id, now=now, limits=allowed)
        if found is None:
            return
        job, n_ahead = found
        with self._db.begin() as tx:
            told = jobs.swap(
                tx,
                _scope(job),
                job.id,
                expect_status={Status.QUEUED},
                expect_attempt=tell.attempt,
                expect_desired=Desired.RUN,
                waiting_for=tell.reason,
            )
            if told is None:
                return
            event = wording.waiting(told.version, sentence(told, tell.reason, n_ahead, allowed, now))
            events.append(tx, _scope(job), job.id, told.attempt, [event])
            failpoint("placement.tell")

    def claim(self, start: reconcile.Start) -> Task | None:
        """Give the job its next attempt and return its task; None when somebody was faster, or the job failed here."""
        status = Status.VALIDATING_FILES if start.kind == "validate" else Status.QUEUED
        token = self._ids.token()
        with self._db.begin() as tx:
            job = jobs.get(tx, _SCOPE, start.job_id, lock=True)
            if job is None or job.status is not status or job.attempt != start.attempt:
                return None
            try:
                spec = (self._specs.validate if start.kind == "validate" else self._specs.train)(tx, job).to_mapping()
            except Gone as gone:
                news: list[NewEvent] = []
                self._attempts.fail(tx, job, gone.error, news)
                events.append(tx, _scope(job), job.id, job.attempt, news)
                return None
            now = self._clock.now()
            training: dict[str, Any] = (
                {"status": Status.RUNNING, "started_at": job.started_at or now} if start.kind == "train" else {}
            )
            claimed = jobs.swap(
                tx,
                _scope(job),
                job.id,
                expect_status={status},
                expect_attempt=start.attempt,
                attempt=start.attempt + 1,
                token_sha256=token_sha256(token),
                handle=None,
                released_at=None,
                waiting_for=None,
                **training,
            )
            if claimed is None:
                return None
            if start.kind == "validate":
                events.append(tx, _scope(job), job.id, claimed.attempt, [wording.validating(job)])
            failpoint("placement.claim")
            base = models.get_base(tx, _SCOPE, job.base)
            answers_here = base is not None and base.upstream is None
        if job.started_at is None and (start.kind == "train" or start.attempt == 0):
            self._sight.observe(QUEUED, now - (job.queued_at or job.created_at), start.kind)
        if start.kind == "train" and self._on_train is not None and answers_here:
            self._on_train(spec["base_path"])
        return Task(
            kind=start.kind,
            job=claimed.id,
            attempt=claimed.attempt,
            token=token,
            socket=str(self._socket),
            folder=str(self._settings.data_dir.absolute() / "attempts" / claimed.id / str(claimed.attempt)),
            spec=spec,
            silence_limit_s=self._lease_s(),
        )

    def _lease_s(self) -> float | None:
        if self._settings.lease_s is not None:
            return self._settings.lease_s
        url = self._settings.database_url
        return None if url is None or url.startswith("sqlite") else _LEASE_S

    def placed(self, job_id: str, attempt: int, handle: Handle) -> bool:
        """Note where an attempt runs; False when its job was taken from it meanwhile."""
        at_work = frozenset(Status) - {Status.CANCELLED}
        with self._db.begin() as tx:
            moved = jobs.swap(tx, _SCOPE, job_id, expect_status=at_work, expect_attempt=attempt, handle=asdict(handle))
            failpoint("placement.placed")
        return moved is not None

    def release(self, release: reconcile.Release) -> None:
        """Free the slot of an attempt that is gone."""
        with self._db.begin() as tx:
            job = jobs.get(tx, _SCOPE, release.job_id, lock=True)
            if job is None or job.attempt != release.attempt:
                return
            jobs.swap(
                tx,
                _scope(job),
                job.id,
                expect_status={job.status},
                expect_attempt=release.attempt,
                handle=None,
                token_sha256=None,
                released_at=self._clock.now(),
            )
            failpoint("placement.release")
        if job.status is Status.CANCELLED and job.finished_at is not None:
            self._sight.observe(GONE, self._clock.now() - job.finished_at)

    def requeue(self, requeue: reconcile.Requeue) -> None:
        """Let a job whose attempt was lost start again, from its newest checkpoint where it has one."""
        with self._db.begin() as tx:
            job = jobs.get(tx, _SCOPE, requeue.job_id, lock=True)
            if job is None or job.attempt != requeue.attempt:
                return
            training = job.status is Status.RUNNING
            moved = jobs.swap(
                tx,
                _scope(job),
                job.id,
                expect_status={Status.VALIDATING_FILES, Status.RUNNING},
                expect_attempt=requeue.attempt,
                expect_desired=Desired.RUN,
                status=Status.QUEUED if training else Status.VALIDATING_FILES,
                lost_attempts=requeue.lost_attempts,
                not_before=requeue.not_before,
                estimated_finish=None,
                handle=None,
                token_sha256=None,
                released_at=self._clock.now(),
            )
            if moved is None:
                return
            newest = newest_checkpoint(tx, job)
            event = wording.lost(job.attempt, requeue.reason, newest.step if newest is not None else None)
            events.append(tx, _scope(job), job.id, job.attempt, [event])
            failpoint("placement.requeue")
        log.warning("attempt.lost", job=job.id, attempt=job.attempt, reason=requeue.reason)

    def pause(self, pause: reconcile.Pause) -> None:
        """Let a job whose attempt is gone rest at its newest checkpoint, as its owner wants."""
        with self._db.begin() as tx:
            job = jobs.get(tx, _SCOPE, pause.job_id, lock=True)
            if job is None or job.attempt != pause.attempt:
                return
            moved = jobs.swap(
                tx,
                _scope(job),
                job.id,
                expect_status={Status.RUNNING},
                expect_attempt=pause.attempt,
                expect_desired=Desired.PAUSE,
                status=Status.PAUSED,
                estimated_finish=None,
                handle=None,
                token_sha256=None,
                released_at=self._clock.now(),
            )
            if moved is None:
                return  # withdrawn meanwhile: the next look decides
            newest = newest_checkpoint(tx, job)
            event = wording.stopped_short(moved.version, pause.reason, newest.step if newest is not None else None)
            events.append(tx, _scope(job), job.id, job.attempt, [event])
            failpoint("placement.pause")
        log.warning("attempt.stopped_short", job=job.id, attempt=job.attempt, reason=pause.reason)

    def give_up(self, fail: reconcile.Fail) -> None:
        """Fail a job whose attempts were lost."""
        with self._db.begin() as tx:
            job = jobs.get(tx, _SCOPE, fail.job_id, lock=True)
            if job is None or job.attempt != fail.attempt:
                return
            news: list[NewEvent] = []
            error = {"code": fail.code, "param": None, "message": fail.message}
            self._attempts.fail(
                tx,
                job,
                error,
                news,
                lost_attempts=fail.lost_attempts,
                handle=None,
                token_sha256=None,
                released_at=self._clock.now(),
            )
            events.append(tx, _scope(job), job.id, job.attempt, news)
            failpoint("placement.give_up")


def _scope(job: Job) -> Scope:
    return Project(job.project_id, job.organization_id)
