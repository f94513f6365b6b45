"""Sampler processes on this machine: one per resident base, started on demand, replaced when dead, unloaded when idle."""

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from tunesmith.core.channel import PROTOCOL
from tunesmith.core.clock import Clock
from tunesmith.core.errors import InvalidRequest, RateLimited, Unavailable
from tunesmith.core.machine import n_cores, process_bytes
from tunesmith.core.settings import Settings
from tunesmith.data.folder import BrokenFolder, fingerprint
from tunesmith.domain.ports import GenerateRequest, Sampled, Sampler
from tunesmith.inference.process import SamplerProcess, Starter

log = structlog.get_logger()

_N_MAX_LINE_BYTES: Final = 1024 * 1024
#: How long a process that broke off its answers may take to be gone: closing a large memory is not done at once.
_BURIAL_S: Final = 5.0
#: One that dies sooner than this after its last start is not started again before somebody asks for it.
RESTART_AFTER_S: Final = 5.0
#: What a client is asked to wait at most while a base is loaded.
LONGEST_PAUSE_S: Final = 60
#: One that takes longer to tell what it is at is called silent.
_STATUS_S: Final = 5.0


@dataclass(slots=True)
class _Place:
    """The sampler of a base, for the files that the base had when it was started."""

    sampler: SamplerProcess
    fingerprint: str


class Resident:
    """The `Inference` port over sampler processes; `folder` holds their sockets. Any event loop may call it."""

    def __init__(self, folder: Path, *, settings: Settings, clock: Clock, embedding: bool = False) -> None:
        self._folder = folder
        self._threads = settings.sampler_threads or max(1, n_cores() // 2)
        self._idle_s = settings.sampler_idle_s
        self._queue = settings.sampler_queue
        self._clock = clock
        self._embedding = embedding
        self._lock = threading.RLock()
        self._places: dict[str, _Place] = {}
        self._starter = Starter()
        self._n_started = 0
        self._closed = threading.Event()
        self._unloader: threading.Thread | None = None

    async def stream(self, base_path: str, request: GenerateRequest) -> AsyncGenerator[Sampled]:
        """Sample tokens as they are computed; closing the iterator stops the generation at the next token.

        Raises:
            Unavailable: the base or the adapter cannot be loaded, or the sampler died; another one is started.
            RateLimited: too many wait for the base already.
            InvalidRequest: the prompt does not fit.
        """
        async with self._connected(base_path, request.project) as (sampler, reader, writer):
            try:
                writer.write(_line(_message(request)))
                await writer.drain()
                n_open = request.n
                while n_open:
                    sampled = _sampled(await reader.readline())
                    n_open -= sampled.finish is not None
                    yield sampled
            except ConnectionError as error:
                await self._bury(sampler)
                raise died(base_path) from error

    async def warm(self, base_path: str) -> None:
        """Make the base resident ahead of the first request."""
        sampler = self._take(base_path)
        try:
            await _shielded(sampler)
        finally:
            self._give_back(sampler)

    async def forget(self, adapter_name: str) -> None:
        """Drop an adapter wherever it is loaded."""
        with self._lock:
            samplers = [place.sampler for place in self._places.values() if place.sampler.ready.done()]
        for sampler in samplers:
            # A sampler that is gone holds no adapter.
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_unix_connection(str(sampler.socket))
                writer.write(_line({"version": PROTOCOL, "op": "forget", "name": adapter_name}))
                await writer.drain()
                writer.close()

    def unload(self, base_path: str) -> None:
        """Let no new request use a base's process; it ends with its last answer."""
        with self._lock:
            if base_path in self._places:
                self._retire(base_path)

    async def status(self) -> dict[str, dict[str, Any]]:
        """Return what each sampler that serves is at, by the path of its base, with its `pid`."""
        with self._lock:
            samplers = [place.sampler for place in self._places.values() if place.sampler.ready.done()]
        told = await asyncio.gather(*(_asked_for_status(sampler) for sampler in samplers))
        pairs = zip(samplers, told, strict=True)
        return {sampler.base_path: {**status, "pid": sampler.pid} for sampler, status in pairs if status is not None}

    async def samplers(self) -> list[Sampler]:
        """Return every sampler there is, those too that are being loaded."""
        with self._lock:
            samplers = [place.sampler for place in self._places.values()]
            loading = {id(sampler): sum(sampler.n_loading.values()) for sampler in samplers if not sampler.ready.done()}
        told = await self.status()
        return [_seen(sampler, told.get(sampler.base_path), loading.get(id(sampler))) for sampler in samplers]

    async def close(self) -> None:
        """Stop every sampler process."""
        self._closed.set()
        with self._lock:
            samplers = [place.sampler for place in self._places.values()]
            self._places.clear()
        for sampler in samplers:
            sampler.kill()
        for sampler in samplers:
            await asyncio.wrap_future(sampler.gone)
        self._starter.close()

    @asynccontextmanager
    async def _connected(
        self, base_path: str, project: str
    ) -> AsyncGenerator[tuple[SamplerProcess, asyncio.StreamReader, asyncio.StreamWriter]]:
        """Connect to the base's sampler; one found dead, with nothing asked of it yet, is replaced at once."""
        for attempt in (1, 2):
            sampler = self._take(base_path)
            try:
                await self._loaded(sampler, project)
                try:
                    reader, writer = await asyncio.open_unix_connection(str(sampler.socket), limit=_N_MAX_LINE_BYTES)
                except OSError as error:
                    if not isinstance(error, ConnectionError | FileNotFoundError):  # too many files are open, say
                        raise Unavailable(f"The sampler of {base_path} cannot be asked now: {error.strerror}.") from error
                    if attempt == 2:
                        raise died(base_path) from error
                    sampler.kill()
                    await self._bury(sampler)
                    continue
                try:
                    yield sampler, reader, writer
                finally:
                    writer.close()
                return
            finally:
                self._give_back(sampler)

    async def _loaded(self, sampler: SamplerProcess, project: str) -> None:
        """Wait until a sampler serves; no more of a project's requests do than may wait for one that serves."""
        with self._lock:
            if not sampler.ready.done() and sampler.n_loading[project] >= self._queue:
                seconds = self._clock.monotonic() - sampler.started_at
                raise RateLimited(
                    f"The model is being loaded, and {self._queue} requests wait for it, which are as many as may "
                    "(`sampler_queue`). Please try again later.",
                    retry_after_s=max(1, min(LONGEST_PAUSE_S, round(seconds))),
                )
            sampler.n_loading[project] += 1
        try:
            await _shielded(sampler)
        finally:
            with self._lock:
                sampler.n_loading[project] -= 1

    async def _bury(self, sampler: SamplerProcess) -> None:
        """Wait until a sampler that broke off is gone, so that the next request meets another one."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(sampler.gone)), _BURIAL_S)
            self._left(sampler)

    def _take(self, base_path: str) -> SamplerProcess:
        """Return the base's sampler, started by this call where there is none for the files as they are now."""
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
            place.sampler.n_answering += 1
            return place.sampler

    def _give_back(self, sampler: SamplerProcess) -> None:
        with self._lock:
            sampler.n_answering -= 1
            sampler.used_at = self._clock.monotonic()
            place = self._places.get(sampler.base_path)
            if (place is None or place.sampler is not sampler) and sampler.n_answering == 0:
                sampler.kill()

    def _start(self, base_path: str, seen: str) -> _Place:
        self._n_started += 1
        role = "embedder" if self._embedding else "sampler"
        socket = self._folder / f"{role}-{os.getpid()}-{self._n_started}.sock"
        sampler = SamplerProcess(
            base_path, socket, threads=self._threads, queue=self._queue, on_gone=self._left, embedding=self._embedding
        )
        sampler.started_at = sampler.used_at = self._clock.monotonic()
        self._places[base_path] = _Place(sampler, seen)
        self._starter.run(sampler.start)
        if self._idle_s is not None and self._unloader is None:
            self._unloader = threading.Thread(target=self._unload, args=(self._idle_s,), name="unloader", daemon=True)
            self._unloader.start()
        return self._places[base_path]

    def _retire(self, base_path: str) -> None:
        """Let nobody new use a base's sampler; it ends with its last answer."""
        sampler = self._places.pop(base_path).sampler
        if sampler.n_answering == 0:
            sampler.kill()

    def _left(self, sampler: SamplerProcess) -> None:
        """Note that a process is gone; one that served and was not stopped is started again."""
        with self._lock:
            place = self._places.get(sampler.base_path)
            if place is None or place.sampler is not sampler:
                return
            del self._places[sampler.base_path]
            lived_s = self._clock.monotonic() - sampler.started_at
            served = sampler.ready.exception() is None
            log.warning("sampler.died", base=sampler.base_path, pid=sampler.pid, exit_code=sampler.gone.result())
            if served and not sampler.killed and lived_s >= RESTART_AFTER_S and not self._closed.is_set():
                self._start(sampler.base_path, place.fingerprint)

    def _unload(self, idle_s: float) -> None:
        """Stop samplers that nobody has used for a while; the next request starts another."""
        while not self._closed.wait(min(idle_s / 4, 10.0)):
            with self._lock:
                for base_path, place in list(self._places.items()):
                    sampler = place.sampler
                    unused_s = self._clock.monotonic() - sampler.used_at
                    if sampler.ready.done() and sampler.n_answering == 0 and unused_s >= idle_s:
                        self._retire(base_path)
                        log.info("sampler.unloaded", base=base_path, pid=sampler.pid)


async def _shielded(sampler: SamplerProcess) -> None:
    """Wait until the process serves; a caller that leaves takes nobody else's sampler away."""
    await asyncio.shield(asyncio.wrap_future(sampler.ready))


async def _asked_for_status(sampler: SamplerProcess) -> dict[str, Any] | None:
    """Return what a sampler says that it is at; None when it does not say."""
    with contextlib.suppress(OSError, ValueError):  # one of them is a TimeoutError
        async with asyncio.timeout(_STATUS_S):
            reader, writer = await asyncio.open_unix_connection(str(sampler.socket))
            with contextlib.closing(writer):
                writer.write(_line({"version": PROTOCOL, "op": "status"}))
                return json.loads(await reader.readline())
    return None


def _seen(sampler: SamplerProcess, told: dict[str, Any] | None, n_loading: int | None) -> Sampler:
    told = told or {}
    return Sampler(
        base_path=sampler.base_path,
        status="loading" if n_loading is not None else "ready" if told else "silent",
        pid=sampler.pid,
        rows=told.get("rows", 0),
        waiting=told.get("waiting", 0) if n_loading is None else n_loading,
        adapters=tuple(told.get("adapters", ())),
        cache_bytes=told.get("cache_bytes", 0),
        memory_bytes=0 if sampler.pid is None else process_bytes(sampler.pid),
    )


def _message(request: GenerateRequest) -> dict[str, Any]:
    adapter = request.adapter
    return {
        "version": PROTOCOL,
        "op": "generate",
        "prompt": request.prompt,
        "n": request.n,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop_ids": sorted(request.stop_ids),
        "grammar": request.grammar,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "logit_bias": list(request.logit_bias.items()),
        "top_logprobs": request.top_logprobs,
        "prompt_logprobs": request.prompt_logprobs,
        "adapter": None if adapter is None else {"name": adapter.name, "path": adapter.path, "sha256": adapter.sha256},
        "project": request.project,
    }


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _sampled(line: bytes) -> Sampled:
    """Read one line of an answer.

    Raises:
        Unavailable, RateLimited, InvalidRequest: it is an error.
        ConnectionResetError: the connection ended too early.
    """
    if not line.endswith(b"\n"):
        raise ConnectionResetError("the connection ended within an answer")
    said = json.loads(line)
    if "error" in said:
        reason = str(said["error"]).rstrip(".")
        if said["kind"] == "prompt":
            raise InvalidRequest(f"{reason}.", param="messages", code="context_length_exceeded")
        if said["kind"] == "full":
            raise RateLimited(f"{reason}.", retry_after_s=said["retry_after_s"])
        if said["kind"] == "grammar":
            raise InvalidRequest(f"The model cannot keep to the schema: {reason}.", param="response_format")
        raise Unavailable(f"The model could not be served: {reason}.")
    top = tuple((token, logprob) for token, logprob in said.get("top", ()))
    return Sampled(said["index"], said["token"], said["logprob"], said["finish"], top, said.get("cached", 0))


def died(base_path: str) -> Unavailable:
    """Return what to say of a process that ended while it answered."""
    return Unavailable(f"The sampler of {base_path} stopped while it answered. It is started again: send the request again.")
