"""Jobs and what belongs to them: attempts, events, checkpoints. Times are unix seconds, ids are the wire's."""

from dataclasses import dataclass, field
from typing import Any

from tunesmith.domain.states import Desired, Status


@dataclass(frozen=True, slots=True)
class Job:
    """One fine-tuning job: the row, whole."""

    id: str
    project_id: str
    organization_id: str
    #: The model as the job shows it: a base name, or a tuned model's name for continued tuning.
    model: str
    #: The registered base under `model` (an alias resolved).
    base: str
    #: The adapter that training starts from (blob key of a checkpoint folder), None for a bare base.
    start_adapter: str | None
    training_file: str
    validation_file: str | None
    suffix: str | None
    seed: int
    #: `supervised`, `dpo` or `reinforcement`.
    method: str
    #: The method's block as requested, `auto` filled in where it was omitted.
    method_config: dict[str, Any]
    #: Hyperparameters with `auto` replaced; None until the files are validated.
    resolved: dict[str, Any] | None
    integrations: list[dict[str, Any]]
    metadata: dict[str, str] | None
    created_at: float
    status: Status = Status.VALIDATING_FILES
    desired: Desired = Desired.RUN
    #: Fencing token: raised by every start and by cancel; a message of an older attempt is refused.
    attempt: int = 0
    #: Attempts that were lost in this job's life; compared with the setting `max_attempts`.
    lost_attempts: int = 0
    #: The supervisor of the current attempt: `{"pid":…, "start_time":…, "boot_id":…}`; None when none was placed.
    handle: dict[str, Any] | None = None
    #: sha256 of the secret that authorises the current attempt on the channel.
    token_sha256: str | None = None
    #: Earliest time of the next attempt.
    not_before: float = 0.0
    #: Since when it waits for its turn: for its validation, later for its training; what the queues are ordered by.
    queued_at: float | None = None
    #: Whether its pause is the server's, which resumes it when it is back.
    drained: bool = False
    #: Why it waits as its events told it; None while they have not, since it was queued or its last attempt began.
    waiting_for: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    estimated_finish: float | None = None
    fine_tuned_model: str | None = None
    result_files: list[str] = field(default_factory=list[str])
    trained_tokens: int | None = None
    error: dict[str, Any] | None = None
    #: Counts from validation: `n_examples`, `tokens`, `trainable_tokens`, `total_steps`, …
    counts: dict[str, Any] | None = None
    #: sha256 of base weights, tokenizer and chat template, pinned at create: `{"weights":…, "tokenizer":…, "template":…}`.
    pins: dict[str, str] = field(default_factory=dict[str, str])
    #: Set when the slot of the last attempt was freed (its processes confirmed gone).
    released_at: float | None = None
    next_seq: int = 1
    version: int = 1


@dataclass(frozen=True, slots=True)
class CreateJob:
    """What a caller asks for; ranges and types are checked by the door, the rest by the service."""

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: str | None = None
    seed: int | None = None
    method: str = "supervised"
    #: The method's block, its hyperparameters completed with `auto`.
    method_config: dict[str, Any] = field(default_factory=lambda: {"hyperparameters": {}})
    integrations: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    metadata: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a job's event stream; `seq` counts from 1 without gaps."""

    id: str
    job_id: str
    project_id: str
    seq: int
    attempt: int
    idempotency_key: str
    created_at: float
    level: str
    message: str
    type: str
    data: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event before the store has given it its id and number."""

    idempotency_key: str
    message: str
    level: str = "info"
    type: str = "message"
    data: dict[str, Any] | None = None
    created_at: float | None = None
    """Unix seconds; None takes the time of the commit."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete, listed checkpoint; its bytes lie under `key` in the blob store."""

    id: str
    job_id: str
    project_id: str
    created_at: float
    step: int
    #: The name it answers to on chat completions.
    model_name: str
    #: Blob prefix of the folder that holds adapter, state and `MANIFEST.json`.
    key: str
    sha256: str
    metrics: dict[str, Any]
    #: Whether a pause asked for it; such a one does not count among those that retention keeps.
    by_pause: bool = False
    #: False once retention dropped it from the list (its bytes may be gone).
    kept: bool = True
