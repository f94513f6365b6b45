"""Recordings: a job told to a tracker of experiments; where to, how far that has come, and the port to the trackers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, cast

from tunesmith.domain.job import Event, Job
from tunesmith.domain.results import by_grader
from tunesmith.domain.states import TERMINAL, Status

TrackerKind = Literal["wandb", "tensorboard", "mlflow", "trackio"]
RecordingStatus = Literal["waiting", "recording", "resting", "finished", "given_up"]
NAMES: Final[dict[TrackerKind, str]] = {
    "wandb": "Weights & Biases",
    "tensorboard": "TensorBoard",
    "mlflow": "MLflow",
    "trackio": "trackio",
}
#: The package that each needs; it comes by the extra of the tracker's own name.
PACKAGES: Final[dict[TrackerKind, str]] = {
    "wandb": "wandb",
    "tensorboard": "tensorboardX",
    "mlflow": "mlflow",
    "trackio": "trackio",
}
#: The setting that says whether a tracker is told, or where.
SETTINGS: Final[dict[TrackerKind, str]] = {
    "wandb": "wandb_mode",
    "tensorboard": "tensorboard_dir",
    "mlflow": "mlflow_url",
    "trackio": "trackio_dir",
}
#: A tag of Weights & Biases is no longer.
_LONGEST_TAG: Final = 64


@dataclass(frozen=True, slots=True)
class Recording:
    """One job for one tracker, and how telling it goes."""

    job_id: str
    #: Which of the job's recordings it is.
    place: int
    project_id: str
    organization_id: str
    kind: TrackerKind
    #: What the job's creator said of it: `project`, `entity`, `name`, `tags`.
    target: dict[str, Any]
    status: RecordingStatus = "waiting"
    #: The last step that was told, when, and where it can be looked at.
    sent_step: int | None = None
    sent_at: float | None = None
    url: str | None = None
    #: Why telling it does not go on; None while it does.
    error: str | None = None
    n_failures: int = 0
    next_try_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """What a tracker is told at the beginning, and again whenever it goes on."""

    kind: TrackerKind
    job_id: str
    place: int
    project: str
    name: str
    entity: str | None
    tags: list[str]
    config: dict[str, Any]
    created_at: float
    #: The key of the service, and where that is.
    secret: str | None = None
    base_url: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """The metrics of one step: as the job's event has them, and as numbers by name."""

    step: int
    at: float
    data: dict[str, Any]
    numbers: dict[str, float]


@dataclass(frozen=True, slots=True)
class End:
    """How a job ended, and the small files that tell of it, by name."""

    status: str
    summary: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Tracker:
    """A tracker as it stands on this server."""

    kind: TrackerKind
    #: Whether it is told of every job, or of those that ask for it, or of none.
    tells: Literal["every_job", "jobs_that_ask", "no_job"]
    #: Where it is, as it may be shown; None where this server does not say so.
    place: str | None
    #: What has to be installed for it; None when nothing has.
    missing: str | None


class TrackerFailed(Exception):
    """A tracker did not take what it was told; the message says why."""


class OpenRun(Protocol):
    """A run that a tracker is being told of.

    Raises (in every call but `kill`):
        TrackerFailed: the tracker did not take it, or not in time.
    """

    #: The last step that the tracker has: whatever comes after it is to be told.
    last_step: int
    url: str | None

    async def tell(self, rows: Sequence[Row]) -> None:
        """Tell steps, in order."""
        ...

    async def rest(self) -> None:
        """Tell that the job is paused; the run is closed."""
        ...

    async def end(self, end: End) -> None:
        """Tell how the job ended; the run is closed, and everything is where it belongs."""
        ...

    async def kill(self) -> None:
        """Let go of the run at once, whatever it is at."""
        ...


class Trackers(Protocol):
    """The trackers of this server."""

    #: Where every job is told to, whatever its creator asks for.
    always: Sequence[TrackerKind]
    #: Whether runs for Weights & Biases are kept here instead of being sent.
    offline: bool

    def missing(self, kind: TrackerKind) -> str | None:
        """Return what has to be installed for a tracker; None when nothing has."""
        ...

    def place(self, kind: TrackerKind) -> str | None:
        """Return where a tracker is told of jobs, as it may be shown; None where this server does not say so."""
        ...

    async def open(self, run: Run) -> OpenRun:
        """Begin a run, or go on with it.

        Raises:
            TrackerFailed: the tracker cannot be reached, or refuses it.
        """
        ...


def run_of(job: Job, recording: Recording, *, secret: str | None, base_url: str | None) -> Run:
    """Return what a tracker is told of a job."""
    target = recording.target
    said = ["openai/finetune", f"openai/{job.base}", f"openai/{job.id}", *(target.get("tags") or [])]
    hyperparameters = {**job.method_config["hyperparameters"], **(job.resolved or {})}
    return Run(
        kind=recording.kind,
        job_id=job.id,
        place=recording.place,
        project=target.get("project") or "tunesmith",
        name=target.get("name") or job.id,
        entity=target.get("entity"),
        tags=list(dict.fromkeys(tag[:_LONGEST_TAG] for tag in said)),
        config={
            "model": job.model,
            "training_file": job.training_file,
            "validation_file": job.validation_file,
            "hyperparameters": hyperparameters,
            "seed": job.seed,
        },
        created_at=job.created_at,
        secret=secret,
        base_url=base_url,
    )


def row_of(event: Event) -> Row:
    """Return the step that a metrics event tells of."""
    data = event.data or {}
    return Row(int(data["step"]), event.created_at, data, numbers(data))


def summary_of(job: Job) -> dict[str, Any]:
    """Return what stays of a job that has ended."""
    told = {
        "status": job.status.value,
        "fine_tuned_model": job.fine_tuned_model,
        "trained_tokens": job.trained_tokens,
        "error": None if job.error is None else job.error.get("message"),
    }
    return {name: value for name, value in told.items() if value is not None}


def stage(status: Status) -> Literal["waits", "trains", "rests", "ended"]:
    """Return what a job's status is to those who watch it train."""
    if status in TERMINAL:
        return "ended"
    return "trains" if status is Status.RUNNING else "rests" if status is Status.PAUSED else "waits"


def numbers(data: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a step, nested ones by their path, those of graders as the result file calls them."""
    found: dict[str, float] = {}
    for name, value in _leaves("", data):
        found[name] = value
    for name, value in by_grader(data).items():
        if isinstance(value, int | float):
            found[name] = float(value)
    return found


def _leaves(before: str, data: Mapping[str, Any]) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for key, value in data.items():
        if isinstance(value, Mapping):
            found += _leaves(f"{before}{key}/", cast("Mapping[str, Any]", value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((before + key, float(value)))
    return found
