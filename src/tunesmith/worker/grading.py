"""Grading inside an attempt: an event loop on a thread beside the training, and a sandbox whose processes are the attempt's.

The kernel ends a zygote with the thread that started it, and its calls with the zygote: nothing of it outlives the trainer.
"""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tunesmith.core.clock import Clock
from tunesmith.graders.base import Embedder, Judge, Tools
from tunesmith.graders.sandbox.environment import Environment
from tunesmith.graders.sandbox.pool import Sandbox

_Answer = TypeVar("_Answer")


class GradingLoop:
    """The loop in which an attempt's graders grade, and the `tools` that they ask; to be used `with`, or closed."""

    def __init__(
        self, clock: Clock, sandbox: Sandbox, *, judges: Judge | None = None, embeddings: Embedder | None = None
    ) -> None:
        self._sandbox = sandbox
        self.tools = Tools(clock, judges=judges, sandbox=sandbox, embeddings=embeddings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="grading", daemon=True)
        self._thread.start()

    def begin(self, question: Coroutine[Any, Any, _Answer]) -> "Future[_Answer]":
        """Start a coroutine in the loop and return at once: training goes on, `result()` waits for the answer."""
        return asyncio.run_coroutine_threadsafe(question, self._loop)

    def run(self, question: Coroutine[Any, Any, _Answer]) -> _Answer:
        """Return a coroutine's answer; an interruption of the wait ends it, and the calls that it has in the sandbox."""
        future = self.begin(question)
        try:
            return future.result()
        finally:
            future.cancel()  # what is done cannot be

    def close(self) -> None:
        """End what still grades, every process of the sandbox, and the thread."""
        if self._loop.is_closed():
            return
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._sandbox.close()
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_grading(
    clock: Clock,
    grader_env: Path,
    *,
    sandbox_reduced: bool,
    judges: Judge | None = None,
    embeddings: Embedder | None = None,
) -> GradingLoop:
    """Open what graders need in a trainer: `grader_env` is the folder of their packages, `sandbox_reduced` the setting."""
    sandbox = Sandbox(Environment(grader_env), reduced=sandbox_reduced)
    return GradingLoop(clock, sandbox, judges=judges, embeddings=embeddings)
