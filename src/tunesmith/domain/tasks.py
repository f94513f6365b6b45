"""What a worker is told: the `spec` of a task, by kind. Paths are local to the worker; keys are the blob store's."""

from dataclasses import asdict, dataclass, field
from typing import Any, Final

#: Folder in the data folder, see `TrainSpec.blueprints`.
BLUEPRINTS: Final = "blueprints"


@dataclass(frozen=True, slots=True)
class ValidateSpec:
    """Read the files, count, resolve `auto`."""

    method: str
    method_config: dict[str, Any]
    base_path: str
    context_length: int
    #: Where blobs are: a URL such as `file:///data/blobs`.
    blobs: str
    training_file: str
    training_key: str
    validation_file: str | None
    validation_key: str | None
    max_line_bytes: int
    #: For messages; empty says "the base model".
    base_name: str = ""
    #: Context lengths by name of the other bases that hold longer rows, for messages; shortest first.
    longer_bases: dict[str, int] = field(default_factory=dict[str, int])
    #: Unix time of the job's creation: templates that print a date see the same one in validation and training.
    created_at: float = 0.0

    def to_mapping(self) -> dict[str, Any]:
        """Return the spec for `Task.spec`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DryRunSpec:
    """Read the files as a validation does, and tell all that can be told of them."""

    validate: ValidateSpec
    #: Seconds after which what is left of the files goes unread.
    seconds: float
    #: Rows of each file whose errors are told one by one.
    n_errors: int
    #: The process whose end ends this one.
    parent: int

    def to_mapping(self) -> dict[str, Any]:
        """Return the spec for another process."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, told: dict[str, Any]) -> "DryRunSpec":
        """Read a spec back."""
        return cls(ValidateSpec(**told["validate"]), told["seconds"], told["n_errors"], told["parent"])


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """Train an adapter on validated files."""

    method: str
    #: Hyperparameters with every `auto` resolved.
    hyperparameters: dict[str, Any]
    method_config: dict[str, Any]
    seed: int
    base_path: str
    base_name: str
    context_length: int
    pins: dict[str, str]
    blobs: str
    training_key: str
    validation_key: str | None
    #: Blob prefix under which this attempt writes: `jobs/{id}/attempts/{n}`.
    output_key: str
    #: Adapter to start from (continued tuning), a blob prefix.
    start_adapter: str | None
    #: Checkpoint to go on from (an earlier attempt's), a blob prefix.
    resume_key: str | None
    threads: int
    max_line_bytes: int
    #: Processes at it, one for each GPU; and whether the base is spread over them.
    processes: int = 1
    spread: bool = False
    #: Of reinforcement: `grader_env`, the folder of graders' packages, and `sandbox_reduced`, the setting.
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    #: Unix time of the job's creation: what templates that print the date see in every attempt.
    created_at: float = 0.0
    #: Folder where it is put down which bases are proven, and how they are built; None for nowhere.
    blueprints: str | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Return the spec for `Task.spec`."""
        return asdict(self)
