"""What is measured as it happens: answers of models while they come, and the steps that trainings report."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final, Protocol, cast

from tunesmith.core.channel import METRICS, Report
from tunesmith.core.clock import Clock
from tunesmith.data.answers import Delta
from tunesmith.domain.sight import ANSWER, FIRST_TOKEN, GRADE, GRADE_ERRORS, STEP, TOKENS, Sight

_COUNT: Final = "_error_count"


class Counted(Protocol):
    """An answer that knows its tokens."""

    n_prompt_tokens: int
    n_completion_tokens: int


async def watched(
    deltas: AsyncGenerator[Delta], answer: Counted, sight: Sight, clock: Clock, *, base: str, began: float
) -> AsyncGenerator[Delta]:
    """Yield the deltas; an answer that breaks off tells its tokens alone."""
    first = True
    try:
        async with aclosing(deltas):
            async for delta in deltas:
                if first:
                    first = False
                    sight.observe(FIRST_TOKEN, clock.monotonic() - began, base)
                yield delta
        sight.observe(ANSWER, clock.monotonic() - began, base)
    finally:
        sight.count(TOKENS, base, "prompt", by=answer.n_prompt_tokens)
        sight.count(TOKENS, base, "completion", by=answer.n_completion_tokens)


class Steps:
    """The steps of every attempt, told to the sight."""

    def __init__(self, sight: Sight) -> None:
        self._sight = sight
        #: The last step of an attempt, and when it was.
        self._last: dict[tuple[str, int], tuple[int, float]] = {}

    def take(self, method: str, reports: Iterable[Report]) -> None:
        """Tell of the steps among reports that are committed."""
        for report in reports:
            if report.kind != METRICS:
                continue
            step, attempt = int(report.data["step"]), (report.job, report.attempt)
            before = self._last.get(attempt)
            self._last[attempt] = (step, report.created_at)
            if before is not None and step > before[0]:
                self._sight.observe(STEP, (report.created_at - before[1]) / (step - before[0]), method)
            self._grades(report.data)

    def forget(self, job_id: str) -> None:
        """Forget a job's attempts: they are over."""
        for attempt in [attempt for attempt in list(self._last) if attempt[0] == job_id]:
            self._last.pop(attempt, None)

    def _grades(self, data: Mapping[str, Any]) -> None:
        """Tell what a step's graders took on an average, and all that went wrong with them."""
        for grader in _graders(data, "timing"):
            for name, seconds in grader.items():
                if name.endswith("_execution_latency_mean") and seconds is not None:
                    self._sight.observe(GRADE, float(seconds), str(grader["type"]), "training")
        for grader in _graders(data, "errors"):
            for name, n in grader.items():
                if name.endswith(_COUNT) and n:
                    flag = name.removesuffix("_count").split("_", 1)[1]
                    self._sight.count(GRADE_ERRORS, str(grader["type"]), flag, by=float(n))


def _graders(data: Mapping[str, Any], part: str) -> list[Mapping[str, Any]]:
    found: object = data.get(part)
    return cast("Mapping[str, Any]", found).get("graders", []) if isinstance(found, dict) else []
