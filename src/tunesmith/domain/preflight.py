"""What a dry run of a job tells: everything that is known before it is created."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.domain.estimate import Estimate
from tunesmith.domain.job import Job
from tunesmith.graders.base import Grade


@dataclass(frozen=True, slots=True)
class Cost:
    """What a training costs at the rate of the settings."""

    amount: float
    currency: str
    per_million_tokens: float
    #: The tokens that are paid for.
    trained_tokens: int


@dataclass(frozen=True, slots=True)
class Tried:
    """A grade of a made-up answer to a row."""

    line: int
    #: `reference`: what the row itself has as an answer, in `column`; `empty`: nothing.
    kind: str
    column: str | None
    text: str
    #: As the grader's run endpoint tells it; None when it was not ready in time.
    grade: Grade | None


@dataclass(frozen=True, slots=True)
class Memory:
    """What a training holds at its peak, and what the machine has."""

    bytes: int
    machine_bytes: int
    on_gpu: bool


@dataclass(frozen=True, slots=True)
class Preflight:
    """The answer to a dry run."""

    #: The job as it would be created; it is in no table.
    job: Job
    #: What it would fail with; None when its files are good.
    error: Mapping[str, Any] | None
    #: What each file holds and what is wrong with it, the training file first; as the process that reads them tells it.
    files: list[dict[str, Any]]
    #: Counts and resolved hyperparameters, as a validation reports them; None where the training file has no row to go by.
    outcome: Mapping[str, Any] | None
    estimate: Estimate | None
    memory: Memory
    cost: Cost | None
    grades: list[Tried] | None
    warnings: list[str]
