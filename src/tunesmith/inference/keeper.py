"""A keeper of processes, one for each base that is asked: started on demand, replaced when dead, unloaded when idle."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

from tunesmith.core.clock import Clock
from tunesmith.core.errors import RateLimited, Unavailable
from tunesmith.core.settings import Settings
from tunesmith.data.folder import BrokenFolder, fingerprint
from tunesmith.inference.process import KeptProcess, Starter

log = structlog.get_logger()

#: How long a process that broke off its answers may take to be gone: closing a large memory is not done at once.
_BURIAL_S: Final = 5.0
#: One that dies sooner than this after its last start is not started again before somebody asks for it.
RESTART_AFTER_S: Final = 5.0
#: What a client is asked to wait at most while a base is loaded.
LONGEST_PAUSE_S: Final = 60

Process = TypeVar("Process", bound=KeptProcess)


@dataclass(slots=True)
class _Place(Generic[Process]):
    """The process of a base, for the files that the base had when it was started."""

    process: Process
    fingerprint: str


class Keeper(Generic[Process]):
    """Processes by the paths of their bases. Any event loop may call it."""

    def __init__(self, *, settings: Settings, clock: Clock) -> None:
        self._idle_s = settings.sampler_idle_s
        self._queue = settings.sampler_queue
        self._clock = clock
        self._lock = threading.RLock()
        self._places: dict[str, _Place[Process]] = {}
        self._starter = Starter()
        self._n_started = 0
        self._closed = threading.Event()
        self._unloader: threading.Thread | None = None

    def _made(self, base_path: str) -> Process:
        """Return the process of a base, which is not started yet."""
        raise NotImplementedError

    @asynccontextmanager
    async def using(self, base_path: str, project: str = "") -> AsyncGenerator[Process]:
        """Have a base's process serve for the length of a block.

        Raises:
            Unavailable: it cannot be started, or does not come to serve.
            RateLimited: too many wait for that already.
        """
        process = self._take(base_path)
        try:
            await self._loaded(process, project)
            yield process
        finally:
            self._give_back(process)

    async def warm(self, base_path: str) -> None:
        """Make the base resident ahead of the first request."""
        process = self._take(base_path)
        try:
            await _shielded(process)
        finally:
            self._give_back(process)

    def unload(self, base_path: str) -> None:
        """Let no new request use a base's process; it ends with its last answer."""
        with self._lock:
            if base_path in self._places:
                self._retire(base_path)

    async def close(self) -> None:
        """Stop every process."""
        self._closed.set()
        with self._lock:
            processes = [place.process for place in self._places.values()]
            self._places.clear()
        for process in processes:
            process.kill()
        for process in processes:
            await asyncio.wrap_future(process.gone)
        self._starter.close()

    async def _loaded(self, process: Process, project: str) -> None:
        """Wait until a process serves; no more of a project's requests do than may wait for one that serves."""
        with self._lock:
            if not process.ready.done() and process.n_loading[project] >= self._queue:
                seconds = self._clock.monotonic() - process.started_at
                raise RateLimited(
                    f"The model is being loaded, and {self._queue} requests wait for it, which are as many as may "
                    "(`sampler_queue`). Please try again later.",
                    retry_after_s=max(1, min(LONGEST_PAUSE_S, round(seconds))),
                )
            process.n_loading[project] += 1
        try:
            await _shielded(process)
        finally:
            with self._lock:
                process.n_loading[project] -= 1

    async def _bury(self, process: Process) -> None:
        """Wait until a process that broke off is gone, so that the next request meets another one."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(process.gone)), _BURIAL_S)
            self._left(process)

    def _take(self, base_path: str) -> Process:
        """Return the base's process, started by this call where there is none for the files as they are now."""
        try:
            seen = fingerprint(Path(base_path))
        except BrokenFolder as error:
            raise Unavailable(f"The base model in {base_path} could not be loaded: {error}") from error
        with self._lock:
            if self._closed.is_set():
                raise Unavailable("The server is shutting down.")
            place = self._places.get(base_path)
            if place is None or place.fingerprint != seen:
                if place is not None:
                    self._retire(base_path)
                place = self._start(base_path, seen)
            place.process.n_answering += 1
            return place.process

    def _give_back(self, process: Process) -> None:
        with self._lock:
            process.n_answering -= 1
            process.used_at = self._clock.monotonic()
            place = self._places.get(process.base_path)
            if (place is None or place.process is not process) and process.n_answering == 0:
                process.kill()

    def _start(self, base_path: str, seen: str) -> _Place[Process]:
        self._n_started += 1
        process = self._made(base_path)
        process.started_at = process.used_at = self._clock.monotonic()
        self._places[base_path] = _Place(process, seen)
        self._starter.run(process.start)
        if self._idle_s is not None and self._unloader is None:
            self._unloader = threading.Thread(target=self._unload, args=(self._idle_s,), name="unloader", daemon=True)
            self._unloader.start()
        return self._places[base_path]

    def _retire(self, base_path: str) -> None:
        """Let nobody new use a base's process; it ends with its last answer."""
        process = self._places.pop(base_path).process
        if process.n_answering == 0:
            process.kill()

    def _left(self, process: Process) -> None:
        """Note that a process is gone; one that served and was not stopped is started again."""
        with self._lock:
            place = self._places.get(process.base_path)
            if place is None or place.process is not process:
                return
            del self._places[process.base_path]
            lived_s = self._clock.monotonic() - process.started_at
            served = process.ready.exception() is None
            log.warning("sampler.died", base=process.base_path, pid=process.pid, exit_code=process.gone.result())
            if served and not process.killed and lived_s >= RESTART_AFTER_S and not self._closed.is_set():
                self._start(process.base_path, place.fingerprint)

    def _unload(self, idle_s: float) -> None:
        """Stop processes that nobody has used for a while; the next request starts another."""
        while not self._closed.wait(min(idle_s / 4, 10.0)):
            with self._lock:
                for base_path, place in list(self._places.items()):
                    process = place.process
                    unused_s = self._clock.monotonic() - process.used_at
                    if process.ready.done() and process.n_answering == 0 and unused_s >= idle_s:
                        self._retire(base_path)
                        log.info("sampler.unloaded", base=base_path, pid=process.pid)


async def _shielded(process: KeptProcess) -> None:
    """Wait until the process serves; a caller that leaves takes nobody else's process away."""
    await asyncio.shield(asyncio.wrap_future(process.ready))
