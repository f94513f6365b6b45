"""What is measured as it happens: answers of models, and the steps of trainings."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from tunesmith.core.channel import MESSAGE, METRICS, Report
from tunesmith.data.answers import Delta
from tunesmith.domain.sight import ANSWER, FIRST_TOKEN, GRADE, GRADE_ERRORS, STEP, TOKENS, Counter, Family, Timing
from tunesmith.services.watching import Steps, watched


@dataclass
class Seen:
    """A sight that can be asked."""

    counted: list[tuple[str, tuple[str, ...], float]] = field(default_factory=list)
    observed: list[tuple[str, tuple[str, ...], float]] = field(default_factory=list)

    def count(self, counter: Counter, *labels: str, by: float = 1.0) -> None:
        self.counted.append((counter.name, labels, by))

    def observe(self, timing: Timing, seconds: float, *labels: str) -> None:
        self.observed.append((timing.name, labels, seconds))

    def exposition(self, now: Iterable[Family]) -> tuple[bytes, str]:
        raise NotImplementedError


@dataclass
class Ticking:
    """A clock that goes on by a second at every look."""

    at: float = 10.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        self.at += 1.0
        return self.at


@dataclass
class Answer:
    n_prompt_tokens: int = 5
    n_completion_tokens: int = 0


async def deltas(answer: Answer) -> AsyncGenerator[Delta]:
    for _ in range(3):
        answer.n_completion_tokens += 1
        yield Delta(0)


@pytest.mark.anyio
async def test_an_answer_tells_its_first_token_and_its_end() -> None:
    seen, answer = Seen(), Answer()
    n = [delta async for delta in watched(deltas(answer), answer, seen, Ticking(), base="nano", began=10.0)]
    assert len(n) == 3
    assert seen.observed == [(FIRST_TOKEN.name, ("nano",), 1.0), (ANSWER.name, ("nano",), 2.0)]
    assert seen.counted == [(TOKENS.name, ("nano", "prompt"), 5), (TOKENS.name, ("nano", "completion"), 3)]


@pytest.mark.anyio
async def test_one_that_its_client_left_tells_the_tokens_that_it_cost() -> None:
    seen, answer = Seen(), Answer()
    async with aclosing(watched(deltas(answer), answer, seen, Ticking(), base="nano", began=10.0)) as coming:
        await anext(coming)
    assert [name for name, *_ in seen.observed] == [FIRST_TOKEN.name]
    assert seen.counted[1] == (TOKENS.name, ("nano", "completion"), 1)


def report(step: int, at: float, kind: str = METRICS, attempt: int = 1, **data: object) -> Report:
    return Report(kind, "ftjob-a", attempt, f"s{step}", at, {"step": step, **data})


def test_steps_tell_what_lies_between_them() -> None:
    seen = Seen()
    steps = Steps(seen)
    steps.take("dpo", [report(1, 100.0), report(2, 100.5), report(9, 900.0, MESSAGE)])
    steps.take("dpo", [report(4, 103.5), report(4, 104.0)])
    steps.take("dpo", [report(5, 500.0, attempt=2)])
    assert seen.observed == [(STEP.name, ("dpo",), 0.5), (STEP.name, ("dpo",), 1.5)]
    steps.forget("ftjob-a")
    steps.take("dpo", [report(5, 501.0)])
    assert len(seen.observed) == 2


def test_steps_tell_how_their_graders_did() -> None:
    seen = Seen()
    timing = {"graders": [{"name": "g", "type": "python", "train_execution_latency_mean": 0.25}], "step": {"sampling": 1.0}}
    errors = {
        "graders": [
            {
                "name": "g",
                "type": "python",
                "train_other_error_count": 2,
                "train_other_error_mean": 0.1,
                "valid_x_error_count": 0,
            }
        ]
    }
    Steps(seen).take("reinforcement", [report(1, 1.0, timing=timing, errors=errors)])
    assert seen.observed == [(GRADE.name, ("python", "training"), 0.25)]
    assert seen.counted == [(GRADE_ERRORS.name, ("python", "other_error"), 2.0)]
