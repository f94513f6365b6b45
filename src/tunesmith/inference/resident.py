"""Sampler processes on this machine, asked over their sockets: one for each resident base."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tunesmith.core.channel import PROTOCOL
from tunesmith.core.clock import Clock
from tunesmith.core.errors import InvalidRequest, RateLimited, Unavailable
from tunesmith.core.machine import n_cores, process_bytes
from tunesmith.core.settings import Settings
from tunesmith.domain.ports import GenerateRequest, Sampled
from tunesmith.domain.sampler import Sampler
from tunesmith.inference.keeper import Keeper
from tunesmith.inference.process import SamplerProcess

_N_MAX_LINE_BYTES: Final = 1024 * 1024
#: One that takes longer to tell what it is at is called silent.
_STATUS_S: Final = 5.0


class Resident(Keeper[SamplerProcess]):
    """The `Inference` port over sampler processes; `folder` holds their sockets."""

    def __init__(self, folder: Path, *, settings: Settings, clock: Clock, embedding: bool = False) -> None:
        super().__init__(settings=settings, clock=clock)
        self._folder = folder
        self._threads = settings.sampler_threads or max(1, n_cores() // 2)
        self._embedding = embedding

    def _made(self, base_path: str) -> SamplerProcess:
        role = "embedder" if self._embedding else "sampler"
        socket = self._folder / f"{role}-{os.getpid()}-{self._n_started}.sock"
        return SamplerProcess(
            base_path, socket, threads=self._threads, queue=self._queue, on_gone=self._left, embedding=self._embedding
        )

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

    async def forget(self, adapter_name: str) -> None:
        """Drop an adapter wherever it is loaded."""
        with self._lock:
            samplers = [place.process for place in self._places.values() if place.process.ready.done()]
        for sampler in samplers:
            # A sampler that is gone holds no adapter.
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_unix_connection(str(sampler.socket))
                writer.write(_line({"version": PROTOCOL, "op": "forget", "name": adapter_name}))
                await writer.drain()
                writer.close()

    async def status(self) -> dict[str, dict[str, Any]]:
        """Return what each sampler that serves is at, by the path of its base, with its `pid`."""
        with self._lock:
            samplers = [place.process for place in self._places.values() if place.process.ready.done()]
        told = await asyncio.gather(*(_asked_for_status(sampler) for sampler in samplers))
        pairs = zip(samplers, told, strict=True)
        return {sampler.base_path: {**status, "pid": sampler.pid} for sampler, status in pairs if status is not None}

    async def samplers(self) -> list[Sampler]:
        """Return every sampler there is, those too that are being loaded."""
        with self._lock:
            samplers = [place.process for place in self._places.values()]
            loading = {id(sampler): sum(sampler.n_loading.values()) for sampler in samplers if not sampler.ready.done()}
        told = await self.status()
        return [_seen(sampler, told.get(sampler.base_path), loading.get(id(sampler))) for sampler in samplers]

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
        kind="embedding" if sampler.embedding else "sampler",
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
