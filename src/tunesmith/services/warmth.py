"""Samplers made ready before anybody asks: for the server's own base at the start, and for the base of a job that trains."""

import asyncio

import structlog

from tunesmith.core.errors import ApiError
from tunesmith.domain.ports import Inference

log = structlog.get_logger()


class Warmth:
    """Asks for samplers ahead of time, from any thread; a base that cannot be loaded is told to who asks for an answer."""

    def __init__(self, inference: Inference, *, wanted: bool) -> None:
        self._inference = inference
        self._wanted = wanted
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, base_path: str | None) -> None:
        """Begin on the running loop with the server's own base."""
        self._loop = asyncio.get_running_loop()
        if base_path is not None:
            self.ask(base_path)

    def ask(self, base_path: str) -> None:
        """Make a sampler of the base ready in the background."""
        loop = self._loop  # the server's end may take it away meanwhile
        if self._wanted and loop is not None:
            loop.call_soon_threadsafe(self._warm, base_path)

    def end(self) -> None:
        """Ask for no more."""
        self._loop = None
        for task in self._tasks:
            task.cancel()

    def _warm(self, base_path: str) -> None:
        task = asyncio.ensure_future(self._try(base_path))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _try(self, base_path: str) -> None:
        try:
            await self._inference.warm(base_path)
        except (ApiError, OSError) as error:
            log.warning("sampler.not_warm", base=base_path, reason=str(error))
