"""What a job's worker is told, put together from rows and settings: the specs of its validation and of its training."""

from typing import Any, Final

from tunesmith.core.machine import n_cores
from tunesmith.core.settings import Settings
from tunesmith.domain.file import File
from tunesmith.domain.job import Checkpoint, Job
from tunesmith.domain.model import Base
from tunesmith.domain.scope import Everywhere, Project, Scope
from tunesmith.domain.tasks import BLUEPRINTS, TrainSpec, ValidateSpec
from tunesmith.graders.sandbox.environment import FOLDER as GRADER_ENV
from tunesmith.store import checkpoints, files, models
from tunesmith.store.session import Transaction

#: Bases with fewer parameters train on one thread: their matrix products are too small to share, and threads that wait for
#: each other spin.
N_SMALL_BASE: Final = 50_000_000


class Gone(Exception):
    """What a queued job needs is no longer there; `error` is what the job will show."""

    def __init__(self, code: str, param: str, message: str) -> None:
        super().__init__(message)
        self.error = {"code": code, "param": param, "message": message}


class Specs:
    """Makes specs of this server's settings."""

    def __init__(self, settings: Settings, blobs_url: str) -> None:
        self._settings = settings
        self._blobs_url = blobs_url

    def validate(self, tx: Transaction, job: Job) -> ValidateSpec:
        """Return what a validation of the job is told.

        Raises:
            Gone: a file or the base is not there any more.
        """
        base = found_base(tx, job)
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
        )

    def train(self, tx: Transaction, job: Job) -> TrainSpec:
        """Return what a training of the job is told; raises as `validate` does."""
        base = found_base(tx, job)
        training, validation = _files(tx, job)
        newest = newest_checkpoint(tx, job)
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
            threads=self.threads(base),
            max_line_bytes=self._settings.max_line_bytes,
            created_at=job.created_at,
            processes=self._settings.training_processes,
            spread=self._settings.training_spread,
            blueprints=str(self._settings.data_dir.absolute() / BLUEPRINTS),
            extra=self._grading() if job.method == "reinforcement" else {},
        )

    def _grading(self) -> dict[str, Any]:
        """Return where a trainer's graders have their packages, and how well they are to be confined."""
        return {
            "grader_env": str(self._settings.data_dir.absolute() / GRADER_ENV),
            "sandbox_reduced": self._settings.sandbox_reduced,
        }

    def threads(self, base: Base) -> int:
        """Return the CPU threads of a training on a base."""
        if self._settings.training_threads is not None:
            return self._settings.training_threads
        if base.n_parameters < N_SMALL_BASE:
            return 1
        return max(1, n_cores() // (self._settings.training_slots * self._settings.training_processes))


def _scope(job: Job) -> Scope:
    return Project(job.project_id, job.organization_id)


def newest_checkpoint(tx: Transaction, job: Job) -> Checkpoint | None:
    """Return the checkpoint from which a job's next attempt goes on, None without any."""
    found, _ = checkpoints.page(tx, _scope(job), job.id, after=None, limit=100)
    return max(found, key=lambda checkpoint: checkpoint.step, default=None)


def found_base(tx: Transaction, job: Job) -> Base:
    """Return the base that a job stands on.

    Raises:
        Gone: it is not there any more.
    """
    base = models.get_base(tx, Everywhere("bases belong to the server"), job.base)
    if base is None:
        message = (
            f"The base model '{job.base}' was removed while the job waited. "
            f"Add it again with `tunesmith models add {job.base} SOURCE` and create the job anew."
        )
        raise Gone("model_not_available", "model", message)
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
        raise Gone("deleted_training_file", "training_file", "The job failed because the training file was deleted")
    if job.validation_file is None:
        return training, None
    validation = find(tx, _scope(job), job.validation_file)
    if validation is None:
        raise Gone("deleted_validation_file", "validation_file", "The job failed because the validation file was deleted")
    return training, validation
