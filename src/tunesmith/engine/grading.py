"""Grades beside the sampling: each finished sample goes to the grader at once, on a thread that waits for graders."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from tunesmith.graders.base import Grade, Sample, Tools
from tunesmith.graders.batch import Batch
from tunesmith.graders.grader import Grader

#: Grades at the same time.
N_AT_ONCE: Final = 16


class GradingThread:
    """One grader on a loop of its own; a daemon's, so that a grader that hangs never holds up the end of the process."""

    def __init__(self, grader: Grader, tools: Callable[[], Tools], *, n_at_once: int = N_AT_ONCE) -> None:
        self.grader = grader
        self._loop = asyncio.new_event_loop()
        self._n_at_once = n_at_once
        self._tools = tools
        self._batch: Batch | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="grading", daemon=True)
        self._thread.start()

    def submit(self, sample: Sample) -> Future[Grade]:
        """Grade a sample; returns at once. Cancelling what is returned gives it up."""
        return asyncio.run_coroutine_threadsafe(self._grade(sample), self._loop)

    async def _grade(self, sample: Sample) -> Grade:
        if self._batch is None:  # what graders ask belongs to the loop in which it was made
            self._batch = Batch(self.grader, self._tools(), n_at_once=self._n_at_once)
        (grade,) = await self._batch.grade([sample])
        return grade
