"""The states of a job and the moves between them: one pure table, asked by everyone, changed by nobody at run time."""

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """A job's status, spelt as on the wire."""

    VALIDATING_FILES = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Desired(StrEnum):
    """What the owner of a job wants of it."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


TERMINAL: Final = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})

MOVES: Final[dict[Status, frozenset[Status]]] = {
    Status.VALIDATING_FILES: frozenset({Status.QUEUED, Status.FAILED, Status.CANCELLED, Status.PAUSED}),
    Status.QUEUED: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELLED, Status.PAUSED}),
    Status.RUNNING: frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.QUEUED, Status.PAUSED}),
    Status.PAUSED: frozenset({Status.QUEUED, Status.VALIDATING_FILES, Status.CANCELLED, Status.FAILED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


def sources(target: Status) -> frozenset[Status]:
    """Return the statuses from which a job may move to `target`; what a compare-and-set has to expect."""
    return frozenset(status for status, targets in MOVES.items() if target in targets)
