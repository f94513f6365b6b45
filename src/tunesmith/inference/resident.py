"""Sampler processes on this machine: one per resident base, started on demand, replaced when dead, unloaded when idle."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from tunesmith.core.channel import PROTOCOL
from tunesmith.core.clock import Clock
from tunesmith.core.environment import passed_on
from tunesmith.core.errors import InvalidRequest, Unavailable
from tunesmith.core.failpoint import failpoint
from tunesmith.core.machine import n_cores
from tunesmith.core.settings import Settings
from tunesmith.domain.ports import GenerateRequest, Sampled

log = structlog.get_logger()

#: A large base takes minutes to read from a slow disk.
LOADING_LIMIT_S: Final = 900.0
_N_MAX_LINE_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class _Sampler:
    """One process and what is known of its use."""

    process: asyncio.subprocess.Process
    socket: Path
    used_at: float
    n_answering: int = 0
    unloading: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Place:
    """Where the sampler of a base stands; the lock is held while it is being started."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    sampler: _Sampler | None = None


class Resident:
    """The `Inference` port over sampler processes; `folder` holds their sockets."""

    def __init__(self, folder: Path, *, settings: Settings, clock: Clock) -> None:
        self._folder = folder
        self._threads = settings.sampler_threads or max(1, n_cores() // 2)
        self._idle_s = settings.sampler_idle_s
        self._clock = clock
        self._places: dict[str, _Place] = {}
        self._n_started = 0
        self._closed = False

    async def stream(self, base_path: str, request: GenerateRequest) -> AsyncGenerator[Sampled]:
        """Sample tokens as they are computed; closing the iterator stops the generation at the next token.

        Raises:
            Unavailable: the base or the adapter cannot be loaded, or the sampler died; it is started anew by the next call.
            InvalidRequest: the prompt does not fit.
        """
        sampler = await self._ready(base_path)
        sampler.n_answering += 1
        try:
            try:
                reader, writer = await asyncio.open_unix_connection(str(sampler.socket), limit=_N_MAX_LINE_BYTES)
            except OSError as error:
                raise _died(base_path) from error
            try:
                writer.write(_line(_message(request)))
                await writer.drain()
                n_open = request.n
                while n_open:
                    sampled = _sampled(await reader.readline(), base_path)
                    n_open -= sampled.finish is not None
                    yield sampled
            except ConnectionError as error:
                raise _died(base_path) from error
            finally:
                writer.close()
        finally:
            sampler.n_answering -= 1
            sampler.used_at = self._clock.monotonic()

    async def warm(self, base_path: str) -> None:
        """Make the base resident ahead of the first request."""
        await self._ready(base_path)

    async def forget(self, adapter_name: str) -> None:
        """Drop an adapter wherever it is loaded."""
        for place in self._places.values():
            if place.sampler is None or place.sampler.process.returncode is not None:
                continue
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_unix_connection(str(place.sampler.socket))
                writer.write(_line({"version": PROTOCOL, "op": "forget", "name": adapter_name}))
                await writer.drain()
                writer.close()

    async def close(self) -> None:
        """Stop every sampler process."""
        self._closed = True
        for place in self._places.values():
            if place.sampler is not None:
                await _kill(place.sampler)
                place.sampler = None

    async def _ready(self, base_path: str) -> _Sampler:
        place = self._places.setdefault(base_path, _Place())
        async with place.lock:
            if self._closed:
                raise Unavailable("The server is shutting down.")
            if place.sampler is not None and place.sampler.process.returncode is not None:
                log.warning("sampler.died", base=base_path, exit_code=place.sampler.process.returncode)
                await _kill(place.sampler)
                place.sampler = None
            if place.sampler is None:
                place.sampler = await self._start(base_path)
                if self._idle_s is not None:
                    place.sampler.unloading = asyncio.create_task(self._unload_when_idle(place, self._idle_s))
            return place.sampler

    async def _start(self, base_path: str) -> _Sampler:
        """Start a sampler and wait until it serves.

        Raises:
            Unavailable: the base does not load.
        """
        self._n_started += 1
        socket = self._folder / f"sampler-{os.getpid()}-{self._n_started}.sock"
        started_at = self._clock.monotonic()
        failpoint("sampler.spawn")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tunesmith.sampler.main", "--base", base_path, "--socket", str(socket)),
            *("--parent", str(os.getpid()), "--threads", str(self._threads)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env={**passed_on(), "TUNESMITH_ROLE": "sampler"},
            start_new_session=True,
        )
        sampler = _Sampler(process, socket, self._clock.monotonic())
        try:
            said = await asyncio.wait_for(_first_line(process), LOADING_LIMIT_S)
        except (TimeoutError, asyncio.CancelledError):
            await _kill(sampler)
            raise
        if said.strip() != b"ready":
            await _kill(sampler)
            reason = _reason(said) or f"its process ended with code {process.returncode}"
            raise Unavailable(f"The base model in {base_path} could not be loaded: {reason}.")
        log.info("sampler.ready", base=base_path, pid=process.pid, seconds=round(self._clock.monotonic() - started_at, 2))
        return sampler

    async def _unload_when_idle(self, place: _Place, idle_s: float) -> None:
        """Stop the sampler once nobody has used it for a while; the next request starts another."""
        sampler = place.sampler
        while sampler is not None and sampler.process.returncode is None:
            rest_s = sampler.used_at + idle_s - self._clock.monotonic()
            if sampler.n_answering == 0 and rest_s <= 0:
                async with place.lock:
                    if sampler.n_answering == 0 and place.sampler is sampler:
                        place.sampler = None
                        sampler.unloading = None
                        await _kill(sampler)
                        log.info("sampler.unloaded", pid=sampler.process.pid)
                return
            await asyncio.sleep(max(rest_s, idle_s / 10))


async def _first_line(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    return await process.stdout.readline()


async def _kill(sampler: _Sampler) -> None:
    if sampler.unloading is not None:
        sampler.unloading.cancel()
    with contextlib.suppress(ProcessLookupError):
        sampler.process.kill()
    await sampler.process.wait()
    sampler.socket.unlink(missing_ok=True)


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
        "adapter": None if adapter is None else {"name": adapter.name, "path": adapter.path, "sha256": adapter.sha256},
    }


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _sampled(line: bytes, base_path: str) -> Sampled:
    """Read one line of an answer.

    Raises:
        Unavailable, InvalidRequest: it is an error, or the connection ended too early.
    """
    if not line:
        raise _died(base_path)
    said = json.loads(line)
    if "error" in said:
        if said["kind"] == "prompt":
            raise InvalidRequest(f"{said['error']}.", param="messages", code="context_length_exceeded")
        raise Unavailable(f"The model could not be served: {said['error']}.")
    return Sampled(said["index"], said["token"], said["logprob"], said["finish"])


def _reason(said: bytes) -> str | None:
    try:
        return str(json.loads(said)["error"])
    except (ValueError, KeyError, TypeError):
        return None


def _died(base_path: str) -> Unavailable:
    return Unavailable(f"The sampler of {base_path} stopped while it answered. It is started again: send the request again.")
