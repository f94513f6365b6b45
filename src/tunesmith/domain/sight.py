"""What an operator sees of the server: every figure it counts or measures, and the port that they are told to.

To add a figure: one line here, and a call of `count` or `observe` where it happens. Labels have few values, never ids.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

#: Borders of what usually takes milliseconds, seconds, and minutes to days.
QUICK: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
USUAL: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
LONG: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)


@dataclass(frozen=True, slots=True)
class Counter:
    """Something that is counted from the server's start; its name ends with `_total`."""

    name: str
    told: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """Something that takes time; its name ends with `_seconds`."""

    name: str
    told: str
    labels: tuple[str, ...] = ()
    borders: tuple[float, ...] = USUAL


@dataclass(frozen=True, slots=True)
class Family:
    """What is so at this moment, or was counted by the database, with a value for each combination of labels."""

    name: str
    told: str
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter"] = "gauge"
    values: Sequence[tuple[tuple[str, ...], float]] = field(default=())


REQUESTS: Final = Counter("tunesmith_http_requests_total", "Requests that were answered.", ("route", "method", "status"))
REQUEST: Final = Timing("tunesmith_http_request_seconds", "Requests, to the end of the answer.", ("route", "method"), QUICK)
QUEUED: Final = Timing("tunesmith_job_queue_seconds", "What jobs waited for a slot.", ("kind",), LONG)
STEP: Final = Timing(
    "tunesmith_training_step_seconds", "Optimizer steps, with all that lies between two of them.", ("method",)
)
CANCEL: Final = Timing("tunesmith_cancel_seconds", "Cancels, to the commit and the kill.", (), QUICK)
GONE: Final = Timing(
    "tunesmith_cancel_gone_seconds", "Cancels of what ran, to the confirmed death of its last process.", (), QUICK
)
FENCED: Final = Counter("tunesmith_fenced_writes_total", "Reports refused because their attempt is its job's no more.")
FIRST_TOKEN: Final = Timing(
    "tunesmith_inference_first_token_seconds", "Answers of models, to their first token.", ("base",), USUAL
)
ANSWER: Final = Timing("tunesmith_inference_seconds", "Answers of models, whole ones.", ("base",))
TOKENS: Final = Counter("tunesmith_inference_tokens_total", "Tokens of prompts and completions.", ("base", "kind"))
GRADE: Final = Timing("tunesmith_grade_seconds", "Grades; of trainings the mean of each step.", ("type", "where"), QUICK)
GRADE_ERRORS: Final = Counter("tunesmith_grade_errors_total", "What went wrong with grades.", ("type", "error"))
WEBHOOKS: Final = Counter("tunesmith_webhook_tries_total", "Tries to deliver a webhook, by how they went.", ("result",))

COUNTERS: Final = (REQUESTS, FENCED, TOKENS, GRADE_ERRORS, WEBHOOKS)
TIMINGS: Final = (REQUEST, QUEUED, STEP, CANCEL, GONE, FIRST_TOKEN, ANSWER, GRADE)


class Sight(Protocol):
    """Where figures are told. Any thread may; none waits."""

    def count(self, counter: Counter, *labels: str, by: float = 1.0) -> None:
        """Add to a counter, with its labels' values in their order."""
        ...

    def observe(self, timing: Timing, seconds: float, *labels: str) -> None:
        """Add a measurement, with its labels' values in their order."""
        ...

    def exposition(self, now: Iterable[Family]) -> tuple[bytes, str]:
        """Return all figures, with those of this moment, as a text that monitors read, and its media type."""
        ...


class Unseen:
    """A sight that nobody looks at."""

    def count(self, counter: Counter, *labels: str, by: float = 1.0) -> None:
        """Forget it."""

    def observe(self, timing: Timing, seconds: float, *labels: str) -> None:
        """Forget it."""

    def exposition(self, now: Iterable[Family]) -> tuple[bytes, str]:  # noqa: ARG002 - it tells nothing
        """Return nothing."""
        return b"", "text/plain"


#: For what is not watched.
UNSEEN: Final = Unseen()
