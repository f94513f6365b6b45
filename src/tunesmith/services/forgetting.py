"""Adapters whose model is gone: samplers drop them and vLLM servers unload them, whoever let the model go."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import structlog

from tunesmith.core.errors import ApiError
from tunesmith.domain.model import Base, TunedModel
from tunesmith.domain.ports import Inference, UpstreamFailed
from tunesmith.services.vllm import Vllm

log = structlog.get_logger()


class Forgetting:
    """Tells those who have loaded an adapter, once its bytes are gone: nobody loads it again in between."""

    def __init__(self, inference: Inference, vllm: Vllm) -> None:
        self._inference = inference
        self._vllm = vllm
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Tell on the running loop what is told from other threads."""
        self._loop = asyncio.get_running_loop()

    def end(self) -> None:
        """Tell no more."""
        self._loop = None
        for task in self._tasks:
            task.cancel()

    async def forget(self, model: TunedModel, base: Base | None) -> None:
        """Have a model dropped; answers under way end as they would have."""
        await self._inference.forget(model.name)
        if base is not None and base.tunable and base.upstream is not None:
            await self._vllm.forget(base, model.name, model.sha256)

    def soon(self, gone: Sequence[tuple[TunedModel, Base | None]]) -> None:
        """Have models dropped in the background; from any thread."""
        loop = self._loop  # the server's end may take it away meanwhile
        if gone and loop is not None:
            loop.call_soon_threadsafe(self._begin, self._each(gone))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _each(self, gone: Sequence[tuple[TunedModel, Base | None]]) -> None:
        for model, base in gone:
            try:
                await self.forget(model, base)
            except (ApiError, UpstreamFailed, OSError) as error:
                log.warning("model.not_forgotten", model=model.name, reason=str(error))
