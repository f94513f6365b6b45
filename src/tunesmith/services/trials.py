"""A grader tried on the first rows of a file before there is a model to answer them: with what each row has as its answer,
and with nothing.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from anyio import to_thread

from tunesmith.data.response_format import schema_of
from tunesmith.domain.file import File
from tunesmith.domain.job import CreateJob
from tunesmith.domain.preflight import Tried
from tunesmith.domain.scope import Project
from tunesmith.graders.base import GradingFailed, Sample
from tunesmith.graders.grader import Grader
from tunesmith.graders.template import paths
from tunesmith.services.grading import Grading
from tunesmith.services.rewards import Rewards

#: What a row's answer is called, the likeliest first.
_ANSWERS: Final = (
    *("reference_answer", "reference", "correct_answer", "answer", "expected_answer", "expected", "ideal", "solution"),
    *("target", "label", "output", "completion", "response"),
)


class Trials:
    """Tries graders."""

    def __init__(self, *, rewards: Rewards, grading: Grading) -> None:
        self._rewards = rewards
        self._grading = grading

    async def run(self, scope: Project, request: CreateJob, grader: Grader, file: File, *, seconds: float) -> list[Tried]:
        """Return the grades of made-up answers to the file's first rows; those not ready after so many seconds are None."""
        as_json = schema_of(request.method_config.get("response_format")) is not None
        samples: list[tuple[int, str, str | None, str, Mapping[str, Any]]] = []
        for line, item in await to_thread.run_sync(lambda: list(self._rewards.first_items(file))):
            answer = reference(grader, item)
            if answer is not None:
                samples.append((line, "reference", *answer, item))
            samples.append((line, "empty", None, "{}" if as_json else "", item))
        tasks = [
            asyncio.ensure_future(self._grading.grade(scope, grader, Sample.of_text(text, item)))
            for *_, text, item in samples
        ]
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=seconds)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [
            Tried(line, kind, column, text, None if task.cancelled() else task.result())
            for (line, kind, column, text, _), task in zip(samples, tasks, strict=True)
        ]


def reference(grader: Grader, item: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what a row has as its own answer, as column and text: what the grader compares with, else by its name.

    None where nothing tells which column that would be.
    """
    sample = Sample(item, {})
    asked: dict[str, Any] = {}
    for text in grader.templates().values():
        for path in paths(text):
            if path.namespace == "item" and path.steps:
                try:
                    asked[str(path)] = path.find(sample)
                except GradingFailed:
                    continue
    named = {f"item.{name}": item[name] for name in _ANSWERS if name in item}
    likely = [name for name in named if name in asked] or (list(asked) if len(asked) == 1 else list(named))
    for name in likely:
        value = asked[name] if name in asked else named[name]
        if value is not None:
            return name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return None


def doubts(tried: Iterable[Tried]) -> list[str]:
    """Say what is odd about grades: that there are none, or that all of them are the same."""
    graded = list(tried)
    grades = [each.grade for each in graded if each.grade is not None]
    if graded and len(grades) < len(graded):
        return [f"{len(graded) - len(grades)} of {len(graded)} grades were not ready in time: a step waits for every grade."]
    if grades and all(grade.errors for grade in grades):
        flag, details = next(iter(grades[0].errors.items()))
        return [f"The grader failed on every answer that it was tried on, first with {flag}: {details}"]
    rewards = {grade.reward for grade in grades if not grade.errors}
    right = any(each.kind == "reference" for each in graded)
    if right and len(grades) > 2 and len(rewards) == 1:
        return [
            f"The grader gives {rewards.pop():g} to each of {len(grades)} answers that it was tried on, those of the rows "
            "themselves and empty ones alike: nothing is learnt from a reward that is always the same."
        ]
    return []
