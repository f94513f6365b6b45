"""What an attempt reports, turned into rows and events: authorised by its token, fenced by its number, each report once."""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import structlog

from tunesmith.core import channel
from tunesmith.core.channel import Report
from tunesmith.core.clock import Clock
from tunesmith.core.failpoint import failpoint
from tunesmith.core.ids import Ids
from tunesmith.core.settings import Settings
from tunesmith.domain import events as wording
from tunesmith.domain.file import File
from tunesmith.domain.job import Checkpoint, Job, NewEvent
from tunesmith.domain.model import checkpoint_name, tuned_name
from tunesmith.domain.ports import Blobs, Stored
from tunesmith.domain.results import FILENAME, PURPOSE, results_csv
from tunesmith.domain.scope import Everywhere, Project, Scope
from tunesmith.domain.sight import FENCED, UNSEEN, Sight
from tunesmith.domain.states import TERMINAL, Desired, Status
from tunesmith.services import checkpoints
from tunesmith.services.watching import Steps
from tunesmith.store import audit, events, files, jobs, metrics, outbox
from tunesmith.store.session import Database, Transaction

log = structlog.get_logger()

_SCOPE: Final = Everywhere("an attempt is known by its job's id and its token, not by a project")


class Fenced(Exception):
    """The attempt is no longer its job's: cancelled, or replaced by a newer one. It must stop."""


class WrongToken(Exception):
    """The caller is not the attempt that it says it is."""


class Attempts:
    """The server's side of the channel."""

    def __init__(
        self,
        *,
        db: Database,
        blobs: Blobs,
        clock: Clock,
        ids: Ids,
        settings: Settings,
        on_change: Callable[[], None],
        sight: Sight = UNSEEN,
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._clock = clock
        self._ids = ids
        self._settings = settings
        self._on_change = on_change
        self.sight = sight
        self._steps = Steps(sight)
        #: First step and its time, by attempt: what the pace of a run is measured from.
        self._pace: dict[tuple[str, int], tuple[int, float]] = {}

    def report(self, job_id: str, attempt: int, token: str, reports: Sequence[Report]) -> str:
        """Take an attempt's reports, in order, and return what the job's owner wants (`run`, `pause`).

        Raises:
            Fenced: the attempt is not the job's current one.
            WrongToken: the token is not the attempt's.
        """
        try:
            self._authorise(job_id, attempt, token)
            return self._take_all(job_id, attempt, reports)
        except Fenced:
            self.sight.count(FENCED)
            raise

    def heartbeat(self, job_id: str, attempt: int, token: str) -> str:
        """Return what the job's owner wants; raises as `report` does."""
        return str(self._authorise(job_id, attempt, token).desired)

    def project(self, job_id: str, attempt: int, token: str) -> Project:
        """Return whose an attempt is, so that its graders are given that project's tools; raises as `report` does."""
        job = self._authorise(job_id, attempt, token)
        return Project(job.project_id, job.organization_id)

    def settle(self, job_id: str, attempt: int, reports: Sequence[Report]) -> None:
        """Take what a dead attempt had not yet delivered; what is fenced meanwhile is dropped."""
        try:
            self._take_all(job_id, attempt, reports)
        except Fenced:
            self.sight.count(FENCED)
            log.info("attempt.fenced", job=job_id, attempt=attempt, n_reports=len(reports))
        for key in [key for key in list(self._pace) if key[0] == job_id]:  # a cancel has raised the attempt since
            self._pace.pop(key, None)
        self._steps.forget(job_id)

    def _authorise(self, job_id: str, attempt: int, token: str) -> Job:
        with self._db.read() as tx:
            job = _current(tx, job_id, attempt)
        if not hmac.compare_digest(token_sha256(token), job.token_sha256 or ""):
            raise WrongToken(job_id)
        return job

    def _take_all(self, job_id: str, attempt: int, reports: Sequence[Report]) -> str:
        """Commit the reports; one that finishes the job has a commit of its own, after the result file is written."""
        batch: list[Report] = []
        desired = "run"
        for report in reports:
            if report.kind != channel.FINISHED:
                batch.append(report)
                continue
            self._commit(job_id, attempt, batch)
            desired = self._finish(job_id, attempt, report)
            batch = []
        return self._commit(job_id, attempt, batch) if batch or not reports else desired

    def _commit(self, job_id: str, attempt: int, reports: Sequence[Report]) -> str:
        dropped: list[Checkpoint] = []
        with self._db.begin() as tx:
            job = _current(tx, job_id, attempt, lock=True)
            before = job.status
            news: list[NewEvent] = []
            for report in reports:
                if job.status in TERMINAL:
                    break
                job = self._take(tx, job, report, news, dropped)
            job = self._estimate(tx, job, reports)
            if news:
                events.append(tx, _scope(job), job.id, attempt, news)
            failpoint("attempts.commit")
        self._forget(dropped)
        self._steps.take(job.method, reports)
        if job.status is not before or any(report.kind == channel.EXITED for report in reports):
            self._on_change()
        return str(job.desired)

    def _take(self, tx: Transaction, job: Job, report: Report, news: list[NewEvent], dropped: list[Checkpoint]) -> Job:
        """Apply one report inside the batch's transaction; events are collected in order."""
        data = report.data
        match report.kind:
            case channel.VALIDATED if job.status is Status.VALIDATING_FILES:
                return self._validated(tx, job, data, news)
            case channel.STARTED:
                news.append(wording.started(job.attempt, int(data["step"])))
            case channel.METRICS:
                metrics.add(tx, _scope(job), job.id, int(data["step"]), data)
                news.append(wording.step(job.method, data, report.created_at))
            case channel.MESSAGE:
                news.append(wording.said(report.idempotency_key, data["message"], data["level"]))
            case channel.CHECKPOINT if job.status is Status.RUNNING:
                self._checkpoint(tx, job, report, news, dropped)
            case channel.PAUSED if job.status is Status.RUNNING:
                return self._paused(tx, job, report, news, dropped)
            case channel.FAILED:
                return self.fail(tx, job, data, news)
            case _:
                log.debug("attempt.report", job=job.id, kind=report.kind, data=data)
        return job

    def _validated(self, tx: Transaction, job: Job, data: dict[str, Any], news: list[NewEvent]) -> Job:
        counts = {key: value for key, value in data.items() if key not in ("hyperparameters", "warnings")}
        news += [wording.warning(number, text) for number, text in enumerate(data.get("warnings", []), start=1)]
        news.append(wording.validated())
        return _moved(
            jobs.swap(
                tx,
                _scope(job),
                job.id,
                expect_status={Status.VALIDATING_FILES},
                expect_attempt=job.attempt,
                status=Status.QUEUED,
                queued_at=self._clock.now(),
                resolved=data["hyperparameters"],
                counts=counts,
            )
        )

    def _estimate(self, tx: Transaction, job: Job, reports: Iterable[Report]) -> Job:
        """Set `estimated_finish` from the pace since this attempt's first step."""
        steps = [report for report in reports if report.kind == channel.METRICS]
        if not steps or job.status is not Status.RUNNING:
            return job
        key = (job.id, job.attempt)
        first_step, first_at = self._pace.setdefault(key, (int(steps[0].data["step"]), steps[0].created_at))
        last = steps[-1]
        n_steps = int(last.data["step"]) - first_step
        if n_steps <= 0:
            return job
        step_s = (last.created_at - first_at) / n_steps
        finish = last.created_at + step_s * (int(last.data["total_steps"]) - int(last.data["step"]))
        return _moved(
            jobs.swap(
                tx,
                _scope(job),
                job.id,
                expect_status={Status.RUNNING},
                expect_attempt=job.attempt,
                estimated_finish=finish,
            )
        )

    def _checkpoint(
        self, tx: Transaction, job: Job, report: Report, news: list[NewEvent], dropped: list[Checkpoint]
    ) -> None:
        """Publish an earlier checkpoint under a name of its own; drop what retention does not keep.

        One that a pause had published before its step was measured is told again when it was: it gets its figures.
        """
        step = int(report.data["step"])
        if known := [checkpoint for checkpoint in checkpoints.listed(tx, job) if checkpoint.step == step]:
            if report.kind == channel.CHECKPOINT:
                checkpoints.measured(tx, job, known[0], report)
            return
        name = checkpoint_name(job.model, self._settings.organization_slug, job.suffix, self._ids.model_tail(), step)
        checkpoints.publish(tx, job, report, name, step=step)
        news.append(wording.checkpoint(step, name, report.created_at))
        if report.kind == channel.CHECKPOINT:
            dropped += checkpoints.retain(tx, job)

    def _paused(self, tx: Transaction, job: Job, report: Report, news: list[NewEvent], dropped: list[Checkpoint]) -> Job:
        """Let the job rest at the checkpoint where its training stopped, or go on from it if the pause was withdrawn."""
        self._checkpoint(tx, job, report, news, dropped)
        resting = job.desired is Desired.PAUSE
        moved = _moved(
            jobs.swap(
                tx,
                _scope(job),
                job.id,
                expect_status={Status.RUNNING},
                expect_attempt=job.attempt,
                status=Status.PAUSED if resting else Status.QUEUED,
                estimated_finish=None,
            )
        )
        if resting:
            news.append(wording.paused(moved.version, int(report.data["step"])))
        return moved

    def _finish(self, job_id: str, attempt: int, report: Report) -> str:
        """Write the result file, then make the job succeeded and its model visible in one commit."""
        with self._db.read() as tx:
            job = _current(tx, job_id, attempt)
            if job.status is not Status.RUNNING:
                return str(job.desired)
            rows = metrics.all(tx, _scope(job), job_id)
        key = f"jobs/{job_id}/attempts/{attempt}/results.csv"
        stored = self._blobs.put(key, results_csv(job.method, rows))
        with self._db.begin() as tx:
            job = _current(tx, job_id, attempt, lock=True)
            dropped = self._succeed(tx, job, report, self._result_file(job, key, stored))
            failpoint("attempts.finish")
        self._forget(dropped)
        self._pace.pop((job_id, attempt), None)
        log.info("job.succeeded", job=job_id, attempt=attempt)
        self._on_change()
        return str(job.desired)

    def _result_file(self, job: Job, key: str, stored: Stored) -> File:
        return File(
            id=self._ids.file(),
            project_id=job.project_id,
            organization_id=job.organization_id,
            created_at=self._clock.now(),
            filename=FILENAME,
            purpose=PURPOSE,
            bytes=stored.bytes,
            sha256=stored.sha256,
            key=key,
        )

    def _succeed(self, tx: Transaction, job: Job, report: Report, result: File) -> list[Checkpoint]:
        last = [checkpoint for checkpoint in checkpoints.listed(tx, job) if checkpoint.step == int(report.data["step"])]
        name = tuned_name(job.model, self._settings.organization_slug, job.suffix, self._ids.model_tail())
        _moved(
            jobs.swap(
                tx,
                _scope(job),
                job.id,
                expect_status={Status.RUNNING},
                expect_attempt=job.attempt,
                status=Status.SUCCEEDED,
                finished_at=self._clock.now(),
                estimated_finish=None,
                fine_tuned_model=name,
                result_files=[result.id],
                trained_tokens=int(report.data["trained_tokens"]),
            )
        )
        files.add(tx, _scope(job), result)
        for checkpoint in last:
            checkpoints.drop(tx, job, checkpoint)
        checkpoints.publish(tx, job, report, name, step=None)
        dropped = checkpoints.retain(tx, job)
        events.append(tx, _scope(job), job.id, job.attempt, [wording.model_created(name), wording.succeeded()])
        outbox.add(tx, _scope(job), job.id, "fine_tuning.job.succeeded")
        audit.tell(tx, _scope(job), "job.succeeded", job.project_id, [job.id, name])
        return dropped

    def fail(self, tx: Transaction, job: Job, error: dict[str, Any], news: list[NewEvent], **changes: Any) -> Job:
        """Fail the job inside the caller's transaction: status, error, event, outbox; `changes` go into the same update."""
        message = wording.printable(str(error.get("message")))
        moved = _moved(
            jobs.swap(
                tx,
                _scope(job),
                job.id,
                expect_status={job.status},
                expect_attempt=job.attempt,
                status=Status.FAILED,
                finished_at=self._clock.now(),
                estimated_finish=None,
                error={"code": error.get("code"), "param": error.get("param"), "message": message},
                **changes,
            )
        )
        news.append(wording.failed(message))
        outbox.add(tx, _scope(job), job.id, "fine_tuning.job.failed")
        audit.tell(tx, _scope(job), "job.failed", job.project_id, [job.id])
        log.info("job.failed", job=job.id, attempt=job.attempt, code=error.get("code"), reason=message)
        return moved

    def _forget(self, dropped: Iterable[Checkpoint]) -> None:
        """Delete the bytes of checkpoints that are listed no more; a failure leaves bytes behind, never a broken row."""
        for checkpoint in dropped:
            self._blobs.delete(checkpoint.key)


def token_sha256(token: str) -> str:
    """Return what the row keeps of an attempt's token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _scope(job: Job) -> Scope:
    return Project(job.project_id, job.organization_id)


def _current(tx: Transaction, job_id: str, attempt: int, *, lock: bool = False) -> Job:
    job = jobs.get(tx, _SCOPE, job_id, lock=lock)
    if job is None or job.attempt != attempt:
        raise Fenced(job_id)
    return job


def _moved(job: Job | None) -> Job:
    """Return the row after a swap that must hold because the row was locked in the same transaction."""
    if job is None:
        raise Fenced("the job changed meanwhile")
    return job
