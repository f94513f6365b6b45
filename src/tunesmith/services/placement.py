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
from tunesmith.core.machine import n_cores
from tunesmith.core.settings import Settings
from tunesmith.domain import events as wording
from tunesmith.domain import reconcile
from tunesmith.domain.file import File
from tunesmith.domain.job import Checkpoint, Job, NewEvent
from tunesmith.domain.model import Base
from tunesmith.domain.ports import Handle
from tunesmith.domain.queue import sentence
from tunesmith.domain.scope import Everywhere, Project, Scope
from tunesmith.domain.states import Desired, Status
from tunesmith.domain.tasks import TrainSpec, ValidateSpec
from tunesmith.graders.sandbox.environment import FOLDER as GRADER_ENV
from tunesmith.services.attempts import Attempts, token_sha256
from tunesmith.services.queue import limits
from tunesmith.store import checkpoints, events, files, jobs, models, queue
from tunesmith.store.session import Database, Transaction

log = structlog.get_logger()

#: Bases with fewer parameters train on one thread: their matrix products are too small to share, and threads that wait for
#: each other spin.
N_SMALL_BASE: Final = 50_000_000
_SCOPE: Final = Everywhere("the scheduler places every project's jobs")
#: The lease where another server could start the job of a worker that this one does not hear.
_LEASE_S: Final = 10.0


class _Gone(Exception):
    """What a queued job needs is no longer there; `error` is what the job will show."""

    def __init__(self, code: str, param: str, message: str) -> None:
        super().__init__(message)
        self.error = {"code": code, "param": param, "message": message}


class Placement:
    """The scheduler's hands on the rows; each method is one commit."""

    def __init__(
        self,
        *,
        db: Database,
        attempts: Attempts,
        clock: Clock,
        ids: Ids,
        settings: Settings,
        blobs_url: str,
        socket: Path,
        on_train: Callable[[str], None] | None = None,
    ) -> None:
        self._db = db
        self._attempts = attempts
        self._clock = clock
        self._ids = ids
        self._settings = settings
        self._blobs_url = blobs_url
        self._socket = socket
        #: The rows of the last look; they are read again only when their version has changed.
        self._seen: dict[str, Job] = {}
        self._on_train = on_train

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
        most = self._settings.training_slots_per_project
        if most is None:
            return jobs.waiting(tx, _SCOPE, Status.QUEUED, now=now, limit=n_waiting)
        n_of_project = reconcile.n_trainings(occupied)

        def room(project_id: str) -> int:
            return max(1, most - n_of_project[project_id])

        # no more projects than slots are at their limit, and of each of them one job may stand before those that can start
        return jobs.waiting(tx, _SCOPE, Status.QUEUED, now=now, limit=2 * n_waiting, room=room)

    def untold(self, limit: int) -> list[Job]:
        """Return the first queued jobs whose events do not tell yet why they wait."""
        with self._db.read() as tx:
            return jobs.untold(tx, _SCOPE, limit=limit)

    def tell(self, tell: reconcile.Tell) -> None:
        """Write down why a job waits, and behind how many."""
        now, allowed = self._clock.now(), limits(self._settings)
        with self._db.read() as tx:
            found = queue.place(tx, _SCOPE, tell.job_id, now=now, per_project=allowed.training_slots_per_project)
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
                spec = self._validate_spec(tx, job) if start.kind == "validate" else self._train_spec(tx, job)
            except _Gone as gone:
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
            newest = _newest_checkpoint(tx, job)
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
            newest = _newest_checkpoint(tx, job)
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

    def _validate_spec(self, tx: Transaction, job: Job) -> dict[str, Any]:
        base = _base(tx, job)
        training, validation = _files(tx, job)
        return ValidateSpec(
            method=job.method,
            method_config=job.method_config,
            base_path=base.path,
            context_length=base.context_length,
            blobs=self._blobs_url,
            training_file=training.id,
            training_key=training.key,
            validation_file=validation.id if validation is not None else None,
            validation_key=validation.key if validation is not None else None,
            max_line_bytes=self._settings.max_line_bytes,
            base_name=base.name,
            longer_bases=_longer(tx, base),
            created_at=job.created_at,
        ).to_mapping()

    def _train_spec(self, tx: Transaction, job: Job) -> dict[str, Any]:
        base = _base(tx, job)
        training, validation = _files(tx, job)
        newest = _newest_checkpoint(tx, job)
        return TrainSpec(
            method=job.method,
            hyperparameters=job.resolved or {},
            method_config=job.method_config,
            seed=job.seed,
            base_path=base.path,
            base_name=base.name,
            context_length=base.context_length,
            pins=job.pins,
            blobs=self._blobs_url,
            training_key=training.key,
            validation_key=validation.key if validation is not None else None,
            output_key=f"jobs/{job.id}/attempts/{job.attempt + 1}",
            start_adapter=job.start_adapter,
            resume_key=newest.key if newest is not None else None,
            threads=self._threads(base),
            max_line_bytes=self._settings.max_line_bytes,
            created_at=job.created_at,
            processes=self._settings.training_processes,
            spread=self._settings.training_spread,
            extra=self._grading() if job.method == "reinforcement" else {},
        ).to_mapping()

    def _grading(self) -> dict[str, Any]:
        """Return where a trainer's graders have their packages, and how well they are to be confined."""
        return {
            "grader_env": str(self._settings.data_dir.absolute() / GRADER_ENV),
            "sandbox_reduced": self._settings.sandbox_reduced,
        }

    def _threads(self, base: Base) -> int:
        if self._settings.training_threads is not None:
            return self._settings.training_threads
        if base.n_parameters < N_SMALL_BASE:
            return 1
        return max(1, n_cores() // (self._settings.training_slots * self._settings.training_processes))


def _scope(job: Job) -> Scope:
    return Project(job.project_id, job.organization_id)


def _newest_checkpoint(tx: Transaction, job: Job) -> Checkpoint | None:
    found, _ = checkpoints.page(tx, _scope(job), job.id, after=None, limit=100)
    return max(found, key=lambda checkpoint: checkpoint.step, default=None)


def _base(tx: Transaction, job: Job) -> Base:
    base = models.get_base(tx, Everywhere("bases belong to the server"), job.base)
    if base is None:
        message = (
            f"The base model '{job.base}' was removed while the job waited. "
            f"Add it again with `tunesmith models add {job.base} SOURCE` and create the job anew."
        )
        raise _Gone("model_not_available", "model", message)
    return base


def _longer(tx: Transaction, base: Base) -> dict[str, int]:
    """Return the context lengths of the ready bases that hold longer rows, by name, shortest first."""
    bases = models.bases(tx, Everywhere("bases belong to the server"))
    longer = [other for other in bases if other.status == "ready" and other.context_length > base.context_length]
    return {other.name: other.context_length for other in sorted(longer, key=lambda other: other.context_length)}


def _files(tx: Transaction, job: Job) -> tuple[File, File | None]:
    # A job that has begun to train goes on although the file was deleted meanwhile.
    find = files.get if job.started_at is None else files.retained
    training = find(tx, _scope(job), job.training_file)
    if training is None:
        raise _Gone("deleted_training_file", "training_file", "The job failed because the training file was deleted")
    if job.validation_file is None:
        return training, None
    validation = find(tx, _scope(job), job.validation_file)
    if validation is None:
        raise _Gone("deleted_validation_file", "validation_file", "The job failed because the validation file was deleted")
    return training, validation
