"""The messages between server, supervisor and worker; standard library only, every message carries a version.

Two hops. Worker to supervisor: one JSON object a line on the file descriptor named by `TUNESMITH_REPORT_FD`; supervisor to
worker: one JSON object a line on `TUNESMITH_CONTROL_FD`. Supervisor to server: HTTP on a Unix socket (`/internal/v1/…`),
authorised by the attempt's token. A `Report` is the same object on both hops; its `idempotency_key` makes a repeat harmless.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final

PROTOCOL: Final = 1

#: What the worker of a `validate` task says last: counts, resolved hyperparameters, warnings.
VALIDATED: Final = "validated"
#: The model is loaded and the first step is about to be taken.
STARTED: Final = "started"
#: One optimizer step: `data` holds `step`, `total_steps` and the metrics.
METRICS: Final = "metrics"
#: A line for the event stream: `data` holds `level` and `message`.
MESSAGE: Final = "message"
#: A complete checkpoint lies in the blob store: `data` holds `step`, `key`, `sha256`, `metrics`.
CHECKPOINT: Final = "checkpoint"
#: The task is done: `data` holds the final checkpoint, `results_key`, `trained_tokens`.
FINISHED: Final = "finished"
#: A training stopped where its owner asked it to: `data` holds the checkpoint from which it goes on, as for `checkpoint`.
PAUSED: Final = "paused"
#: The task failed in a way the worker can explain: `data` holds `code`, `param`, `message`.
FAILED: Final = "failed"
#: From the supervisor: the tree is gone. `data`: `exit_code`, `signal`, `killed` (by us), `out_of_memory`, `stderr_tail`.
EXITED: Final = "exited"

#: Why a supervisor killed its tree (`cause` in `exit.json`): it was told to by a signal; the server refused the attempt; the
#: server was silent for longer than the lease; the attempt's folder was removed.
STOPPED: Final = "stopped"
REFUSED: Final = "refused"
LEASE_EXPIRED: Final = "lease_expired"
FOLDER_REMOVED: Final = "folder_removed"

#: A spare's answers to its server: it has imported everything; it has taken the task.
READY: Final = "ready"
TAKEN: Final = "taken"


@dataclass(frozen=True, slots=True)
class Report:
    """One thing that happened in an attempt."""

    kind: str
    job: str
    attempt: int
    idempotency_key: str
    created_at: float
    data: dict[str, Any] = field(default_factory=dict)
    version: int = PROTOCOL

    def to_json(self) -> str:
        """Return the report as one line of JSON without the newline."""
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_mapping(cls, message: dict[str, Any]) -> "Report":
        """Build a report from parsed JSON.

        Raises:
            ValueError: a key is missing, or the version is not ours.
        """
        version = message.get("version")
        if version != PROTOCOL:
            raise ValueError(f"channel version {version!r} is not {PROTOCOL}")
        try:
            return cls(
                kind=str(message["kind"]),
                job=str(message["job"]),
                attempt=int(message["attempt"]),
                idempotency_key=str(message["idempotency_key"]),
                created_at=float(message["created_at"]),
                data=dict(message.get("data") or {}),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"a report lacks {error}") from error


@dataclass(frozen=True, slots=True)
class Task:
    """What an attempt is to do; written as `task.json` by the executor and read by supervisor and worker.

    `spec` is the worker's own part, by `kind` (`validate` or `train`); see `tunesmith.domain.tasks`.
    """

    kind: str
    job: str
    attempt: int
    token: str
    socket: str
    folder: str
    spec: dict[str, Any]
    version: int = PROTOCOL
    #: Seconds of silence from the server after which the supervisor kills its tree; None: it works on and spools.
    silence_limit_s: float | None = None

    def to_json(self) -> str:
        """Return the task as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Task":
        """Read a task back.

        Raises:
            ValueError: the version is not ours or the JSON is not a task.
        """
        message = json.loads(text)
        if message.get("version") != PROTOCOL:
            raise ValueError(f"task version {message.get('version')!r} is not {PROTOCOL}")
        return cls(**message)
