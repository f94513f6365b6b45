"""Many samples at a time: so many grades at once, none computed twice, and how long each grader took."""

import asyncio
import hashlib
import json
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tunesmith.graders.base import Grade, Sample, Tools
from tunesmith.graders.grader import Grader

#: Grades that are remembered, and durations of each grader that its percentiles are of.
N_KEPT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the last grades of a grader took, in seconds."""

    n: int
    p50: float
    p95: float
    p99: float


class _Asked:
    """A grade that is being computed, and how many wait for it."""

    def __init__(self, task: asyncio.Task[Grade]) -> None:
        self.task = task
        self.n_waiting = 0


class Batch:
    """One grader over many samples."""

    def __init__(self, grader: Grader, tools: Tools, *, n_at_once: int, n_kept: int = N_KEPT) -> None:
        self._grader = grader
        self._tools = tools
        self._turns = asyncio.Semaphore(n_at_once)
        self._n_kept = n_kept
        self._kept: OrderedDict[str, Grade] = OrderedDict()
        self._seconds: dict[str, deque[float]] = {}
        self._asked: dict[str, _Asked] = {}

    async def grade(self, samples: Iterable[Sample]) -> list[Grade]:
        """Return the grades of samples, in their order. A failed one is not remembered, so that it may succeed later."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.one(sample)) for sample in samples]
        return [task.result() for task in tasks]

    async def one(self, sample: Sample) -> Grade:
        """Return the grade of a sample; one that is being computed is waited for, and given up with the last who waits."""
        key = _key(sample)
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = _Asked(asyncio.create_task(self._one(key, sample)))
        asked.n_waiting += 1
        try:
            return await asyncio.shield(asked.task)
        finally:
            asked.n_waiting -= 1
            if not asked.n_waiting:
                asked.task.cancel()  # what is done cannot be
                if self._asked.get(key) is asked:
                    del self._asked[key]

    async def _one(self, key: str, sample: Sample) -> Grade:
        known = self._kept.get(key)
        if known is not None:
            self._kept.move_to_end(key)
            return known
        async with self._turns:
            grade = await self._grader.grade(sample, self._tools)
        self._time(self._grader.name or self._grader.type, grade)
        if grade.score is not None:
            self._kept[key] = grade
            if len(self._kept) > self._n_kept:
                self._kept.popitem(last=False)
        return grade

    def _time(self, name: str, grade: Grade) -> None:
        self._seconds.setdefault(name, deque(maxlen=N_KEPT)).append(grade.seconds)
        for part, inner in grade.parts.items():
            self._time(part, inner)

    def latencies(self) -> dict[str, Latency]:
        """Return how long each grader took, by name; remembered grades took nothing and do not count."""
        return {name: _latency(sorted(seconds)) for name, seconds in self._seconds.items()}


def _key(sample: Sample) -> str:
    """Return what equal samples share."""
    return hashlib.sha256(json.dumps([sample.item, sample.sample], sort_keys=True).encode()).hexdigest()


def _latency(ascending: Sequence[float]) -> Latency:
    n = len(ascending)
    p50, p95, p99 = (ascending[min(n - 1, n * percent // 100)] for percent in (50, 95, 99))
    return Latency(n, p50, p95, p99)
