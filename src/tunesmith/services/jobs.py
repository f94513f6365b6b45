"""Fine-tuning jobs: creating with every check that needs no reading of rows, looking, cancelling at once."""

from collections.abc import Iterable
from typing import Any, Final, Literal, Protocol

import structlog

from tunesmith.core.clock import Clock
from tunesmith.core.errors import InvalidRequest, JobNotFound, StateConflict
from tunesmith.core.failpoint import failpoint
from tunesmith.core.ids import Ids
from tunesmith.domain import events as wording
from tunesmith.domain.file import File
from tunesmith.domain.job import Checkpoint, CreateJob, Event, Job, NewEvent
from tunesmith.domain.model import Base, TunedModel
from tunesmith.domain.ports import Executor, Handle
from tunesmith.domain.reconcile import DYING_S
from tunesmith.domain.scope import Project
from tunesmith.domain.sight import CANCEL, UNSEEN, Sight
from tunesmith.domain.states import TERMINAL, Desired, Status
from tunesmith.services.bases import Bases, ModelNotAvailable
from tunesmith.services.idempotency import Also
from tunesmith.services.limits import Limits
from tunesmith.store import audit, checkpoints, events, files, jobs, models, outbox
from tunesmith.store.session import Database, Transaction

TRAINING_PURPOSE: Final = "fine-tune"
#: What every method can be told, and what each can besides; left out, all is chosen here.
_EVERY: Final = {"batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": "auto"}
_LEFT_OUT: Final[dict[str, dict[str, str]]] = {
    "supervised": _EVERY,
    "dpo": {**_EVERY, "beta": "auto"},
    "reinforcement": {
        **_EVERY,
        "compute_multiplier": "auto",
        "eval_interval": "auto",
        "eval_samples": "auto",
        "reasoning_effort": "default",
    },
}
_UNFINISHED: Final = frozenset(Status) - TERMINAL

log = structlog.get_logger()


class Wake(Protocol):
    """Whoever looks at the rows."""

    def __call__(self, after_s: float = 0.0, /) -> None:
        """Ask for a look, at the latest after so many seconds."""


class Watchers(Protocol):
    """Whoever is told how jobs train."""

    def check(self, scope: Project, asked: list[dict[str, Any]], /) -> None:
        """Look at what a job to be asks for.

        Raises:
            InvalidRequest: it cannot be told there.
        """

    def begin(self, tx: Transaction, scope: Project, job: Job, /) -> None:
        """Note where a new job is to be told, in the commit that makes it."""


class Jobs:
    """The jobs of a project."""

    def __init__(  # noqa: PLR0913 - each is a part of its own
        self,
        *,
        db: Database,
        bases: Bases,
        clock: Clock,
        ids: Ids,
        limits: Limits,
        executor: Executor,
        on_change: Wake,
        sight: Sight = UNSEEN,
        watchers: Watchers | None = None,
    ) -> None:
        self._db = db
        self._bases = bases
        self._clock = clock
        self._ids = ids
        self._limits = limits
        self._executor = executor
        self._on_change = on_change
        self._sight = sight
        self._watchers = watchers

    def create(self, scope: Project, request: CreateJob, *, also: Also[Job] | None = None) -> Job:
        """Create a job in `validating_files`; what `also` writes is in the same commit.

        Raises:
            InvalidRequest: a file, the model or an integration cannot be used; files are looked at before the model, as
                OpenAI does.
            OverQuota: as many jobs of the project as may wait do so already.
        """
        job, tuned = self._prepared(scope, request)
        with self._db.begin() as tx:
            # What the job stands on may have been deleted since it was looked at.
            usable_files(tx, scope, request)
            if tuned is not None and models.usable(tx, scope, tuned.name, lock=True) is None:
                raise ModelNotAvailable(f"Model {tuned.name} is not available for fine-tuning or does not exist.")
            self._limits.check_job(tx, scope)
            stored = jobs.add(tx, scope, job, [wording.created(job)])
            if self._watchers is not None:
                self._watchers.begin(tx, scope, stored)
            if also is not None:
                also(tx, stored)
            failpoint("jobs.create")
        failpoint("jobs.created")
        log.info("job.created", job=job.id, model=job.model, base=job.base)
        self._on_change()
        return stored

    def prepare(self, scope: Project, request: CreateJob) -> Job:
        """Return the job that `create` would make, with the same checks, and make none; raises as `create` does."""
        job, _ = self._prepared(scope, request)
        with self._db.read() as tx:
            self._limits.check_job(tx, scope)
        return job

    def _prepared(self, scope: Project, request: CreateJob) -> tuple[Job, TunedModel | None]:
        """Return a job to be, and the tuned model that it starts from, if any."""
        with self._db.read() as tx:
            usable_files(tx, scope, request)
            tuned = models.find(tx, scope, request.model)
        base = self._base(request.model, tuned)
        if self._watchers is not None:
            self._watchers.check(scope, request.integrations)
        return self._new(scope, request, base, tuned), tuned

    def _base(self, model: str, tuned: TunedModel | None) -> Base:
        """Return the base under the model, ready and unchanged."""
        if tuned is None:
            return self._bases.resolve(model)
        base = self._bases.resolve(tuned.base)
        changed = sorted(part for part, digest in tuned.pins.items() if base.pins.get(part) != digest)
        if changed:
            raise InvalidRequest(
                f"{tuned.name} was tuned on another {' and '.join(changed)} than the base model {base.name} has now. "
                "Bring the files that it was tuned on back, or tune from the base.",
                param="model",
            )
        return base

    def _new(self, scope: Project, request: CreateJob, base: Base, tuned: TunedModel | None) -> Job:
        config: dict[str, Any] = {
            **request.method_config,
            "hyperparameters": {**_LEFT_OUT[request.method], **(request.method_config.get("hyperparameters") or {})},
        }
        now = self._clock.now()
        return Job(
            id=self._ids.job(),
            project_id=scope.project_id,
            organization_id=scope.organization_id,
            model=request.model,
            base=base.name,
            start_adapter=None if tuned is None else tuned.adapter_key,
            training_file=request.training_file,
            validation_file=request.validation_file,
            suffix=request.suffix,
            seed=self._ids.seed() if request.seed is None else request.seed,
            method=request.method,
            method_config=config,
            resolved=None,
            integrations=request.integrations,
            metadata=request.metadata,
            created_at=now,
            queued_at=now,
            pins=base.pins,
        )

    def get(self, scope: Project, job_id: str) -> Job:
        """Return a job.

        Raises:
            JobNotFound: the project has none of this id.
        """
        with self._db.read() as tx:
            return _found(tx, scope, job_id)

    def page(
        self,
        scope: Project,
        *,
        after: str | None = None,
        limit: int = 20,
        metadata: dict[str, str] | Literal["null"] | None = None,
    ) -> tuple[list[Job], bool]:
        """Return jobs, newest first, and whether there are more."""
        with self._db.read() as tx:
            return jobs.page(tx, scope, after=after, limit=limit, metadata=metadata)

    def events(self, scope: Project, job_id: str, *, after: str | None = None, limit: int = 20) -> tuple[list[Event], bool]:
        """Return a job's events, newest first, and whether there are more."""
        with self._db.read() as tx:
            _found(tx, scope, job_id)
            return events.page(tx, scope, job_id, after=after, limit=limit)

    def checkpoints(
        self, scope: Project, job_id: str, *, after: str | None = None, limit: int = 10
    ) -> tuple[list[Checkpoint], bool]:
        """Return a job's checkpoints, highest step first, and whether there are more."""
        with self._db.read() as tx:
            _found(tx, scope, job_id)
            return checkpoints.page(tx, scope, job_id, after=after, limit=limit)

    def cancel(self, scope: Project, job_id: str) -> Job:
        """Cancel a job: final in one commit, then its processes are killed; nobody's cooperation is needed.

        A job that is cancelled already is returned as it is.

        Raises:
            JobNotFound: the project has none of this id.
            StateConflict: it has succeeded or failed.
        """
        began = self._clock.monotonic()
        with self._db.begin(urgent=True) as tx:
            job = _found(tx, scope, job_id)
            cancelled = self._end(
                tx, scope, job, Status.CANCELLED, wording.cancelled(), desired=Desired.CANCEL, estimated_finish=None
            )
            failpoint("jobs.cancel")
        if cancelled is None:
            job = self.get(scope, job_id)
            if job.status is Status.CANCELLED:
                return job
            raise StateConflict(f"Job {job.id} has already {job.status}, so it cannot be cancelled.")
        log.info("job.cancelled", job=job.id, was=str(job.status), attempt=job.attempt)
        self.stop([cancelled])
        self._sight.observe(CANCEL, self._clock.monotonic() - began)
        return cancelled

    def fail_without(self, tx: Transaction, scope: Project, file: File) -> list[Job]:
        """Fail the jobs that have not begun to train on a file that is being deleted, in the caller's transaction.

        Hand those returned to `stop` after the commit.
        """
        failed: list[Job] = []
        for job in jobs.using_file(tx, scope, file.id):
            if job.started_at is not None:
                continue
            param = "training_file" if job.training_file == file.id else "validation_file"
            message = f"The job failed because the {param.replace('_', ' ')} was deleted"
            error = {"code": f"deleted_{param}", "param": param, "message": message}
            ended = self._end(tx, scope, job, Status.FAILED, wording.failed(message), error=error)
            if ended is not None:
                audit.tell(tx, scope, "job.failed", job.project_id, [job.id])
                failed.append(ended)
        return failed

    def stop(self, ended: Iterable[Job]) -> None:
        """Kill what still runs for jobs that have just ended; the scheduler repeats it until it is gone."""
        for job in ended:
            if job.handle is not None and job.released_at is None:
                self._executor.stop(Handle(**job.handle))
                # the scheduler would only find it dying, and whoever cancels many waits for the next answer
                self._on_change(DYING_S)
            else:
                self._on_change()

    def _end(self, tx: Transaction, scope: Project, job: Job, status: Status, last: NewEvent, **changes: Any) -> Job | None:
        """End the job from outside; the attempt's number goes up, so that whatever still runs can write no more."""
        ended = jobs.swap(
            tx,
            scope,
            job.id,
            expect_status=_UNFINISHED,
            fence=True,
            status=status,
            finished_at=self._clock.now(),
            **changes,
        )
        if ended is None:
            return None
        events.append(tx, scope, job.id, ended.attempt, [last])
        outbox.add(tx, scope, job.id, f"fine_tuning.job.{status}")
        return ended


def _found(tx: Transaction, scope: Project, job_id: str) -> Job:
    job = jobs.get(tx, scope, job_id)
    if job is None:
        raise JobNotFound(job_id)
    return job


def usable_files(tx: Transaction, scope: Project, request: CreateJob) -> dict[str, File]:
    """Return the files of a job to be, by the field that names each.

    Raises:
        InvalidRequest: one cannot be used, or the method needs one more.
    """
    found = {"training_file": _usable(tx, scope, "training_file", request.training_file)}
    if request.validation_file is not None:
        found["validation_file"] = _usable(tx, scope, "validation_file", request.validation_file)
    elif request.method == "reinforcement":
        raise InvalidRequest(
            "The method 'reinforcement' needs a 'validation_file': the reward on its prompts tells whether training helps, "
            "and which checkpoints are kept. Upload some prompts that are not in the training file, with purpose "
            f"'{TRAINING_PURPOSE}', and name that file.",
            param="validation_file",
            code="missing_required_parameter",
        )
    return found


def _usable(tx: Transaction, scope: Project, param: str, file_id: str) -> File:
    file = files.get(tx, scope, file_id)
    if file is None:
        raise InvalidRequest(f"invalid {param}: {file_id}", param=param)
    if file.purpose != TRAINING_PURPOSE:
        raise InvalidRequest(
            f"invalid {param}: {file_id} was uploaded with purpose '{file.purpose}'; upload it with purpose "
            f"'{TRAINING_PURPOSE}'.",
            param=param,
        )
    return file
