"""Adapters on vLLM servers: loaded there before they are asked, unloaded when they are deleted or too many; their health."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, cast

import structlog

from tunesmith.core.errors import ApiError, BadGateway
from tunesmith.domain.model import Base
from tunesmith.domain.ports import Adapter, Endpoint, UpstreamFailed, Upstreams
from tunesmith.domain.serving import OwnServers
from tunesmith.services.upstreams import KeyMissing, endpoint, failed

log = structlog.get_logger()

#: Twice that is less than `tunesmith doctor` waits.
LOOK_S: Final = 2.0
UNLOAD_S: Final = 30.0
_N_NAME: Final = 200
_N_SHA256: Final = 12
_NOT_FOUND: Final = 404
_KEY_REFUSED: Final = frozenset({401, 403})
_HAS_IT: Final = re.compile(r"already (been )?loaded", re.IGNORECASE)
_NO_FOLDER: Final = re.compile(r"no adapter found|no such file|permission denied|not a directory", re.IGNORECASE)
_NO_LORA: Final = re.compile(r"lora is not enabled|enable.lora", re.IGNORECASE)
_RANK: Final = re.compile(r"max_lora_rank|lora rank", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Serving:
    """How the server of a base is."""

    #: None where it is one of ours that is not started.
    url: str | None
    healthy: bool
    #: Why it is not.
    detail: str | None = None
    #: Adapters on the base that it has loaded, whoever asked for that; None where it does not say.
    n_adapters: int | None = None


@dataclass(slots=True)
class _Slot:
    """An adapter at a server: one load or unload of it at a time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: Where it was loaded: a server of ours that is started again is at another place.
    url: str = ""
    is_loaded: bool = False
    n_users: int = 0


class Vllm:
    """What the vLLM servers have loaded of ours. Names there are of their content: nothing is ever loaded in place."""

    def __init__(self, servers: Upstreams, own: OwnServers, blobs: Path, *, n_most: int) -> None:
        self._servers = servers
        self._own = own
        self._blobs = blobs
        self._n_most = n_most
        #: By server and name there, the least recently used first.
        self._slots: dict[tuple[str, str], _Slot] = {}

    @asynccontextmanager
    async def place(self, base: Base) -> AsyncGenerator[Endpoint]:
        """Tell where a model upstream is asked; a server of ours serves for the length of the block.

        Raises:
            KeyMissing: the key is not there.
            Unavailable: a server of ours does not come to serve.
        """
        assert base.upstream is not None
        if base.served_here:
            async with self._own.serving(base.path) as at:
                yield at
        else:
            yield endpoint(base.url, base.upstream.key_env)

    async def bury(self, base: Base, at: Endpoint) -> None:
        """Let a server of ours that does not answer be replaced by the next who asks."""
        await self._own.bury(base.path, at)

    @asynccontextmanager
    async def loaded(self, base: Base, at: Endpoint, adapter: Adapter) -> AsyncGenerator[str]:
        """Have an adapter loaded for the length of a block, which gets its name there.

        Raises:
            ApiError: the server does not take it.
            UpstreamFailed: it cannot be asked.
        """
        name = name_there(adapter.name, adapter.sha256)
        key = (base.url, name)
        slot = self._slots.pop(key, None) or _Slot()
        self._slots[key] = slot
        slot.n_users += 1
        try:
            async with slot.lock:
                if not slot.is_loaded or slot.url != at.url:
                    await self._load(base, at, adapter, name)
                    slot.is_loaded, slot.url = True, at.url
            await self._shrink(base.url, at)
            yield name
        finally:
            slot.n_users -= 1
            self._drop(key)

    def lost(self, base: Base, name: str) -> None:
        """Note that a server has forgotten an adapter."""
        slot = self._slots.get((base.url, name))
        if slot is not None:
            slot.is_loaded = False

    async def forget(self, base: Base, tuned: str, sha256: str) -> None:
        """Unload the adapter of a model that was deleted; answers under way go on. A server that is away keeps it."""
        assert base.upstream is not None
        try:
            at = self._running(base)
        except KeyMissing as missing:
            log.warning("vllm.not_unloaded", model=tuned, reason=str(missing))
            return
        if at is not None:
            await self._unload(base.url, at, name_there(tuned, sha256))

    async def seen(self, base: Base) -> Serving | None:
        """Return how the server of a base is, None for a base that no vLLM serves."""
        if base.upstream is None or not base.tunable:
            return None
        try:
            at = self._running(base)
            if at is None:
                return Serving(None, healthy=True, detail="It is started by the first request for it.", n_adapters=0)
            if base.served_here and not self._is_ready(base):
                return Serving(at.url, healthy=False, detail="It is being started.")
            root = Endpoint(at.url.removesuffix("/v1"), at.key)
            await self._servers.tell(root, "health", timeout_s=LOOK_S)
            answer = await self._servers.call(at, "models", n_tries=1, timeout_s=LOOK_S)
        except (KeyMissing, UpstreamFailed) as failure:
            return Serving(base.url, healthy=False, detail=str(failure))
        rows: Any = answer.get("data")
        if not isinstance(rows, list):
            return Serving(at.url, healthy=True)
        told = [cast("dict[str, Any]", row) for row in cast("list[object]", rows) if isinstance(row, dict)]
        return Serving(at.url, healthy=True, n_adapters=sum(row.get("parent") == base.upstream.model for row in told))

    def _running(self, base: Base) -> Endpoint | None:
        """Return where a base's server is asked; None where it is one of ours that is not started."""
        assert base.upstream is not None
        if not base.served_here:
            return endpoint(base.url, base.upstream.key_env)
        own = self._own.seen(base.path)
        return None if own is None else own.at

    def _is_ready(self, base: Base) -> bool:
        own = self._own.seen(base.path)
        return own is not None and own.ready

    async def _load(self, base: Base, at: Endpoint, adapter: Adapter, name: str) -> None:
        path = self._path_there(base, adapter)
        try:
            await self._servers.tell(at, "load_lora_adapter", {"lora_name": name, "lora_path": path})
        except UpstreamFailed as failure:
            if not failure.status:
                raise
            if not _HAS_IT.search(failure.reason):
                raise self._refused(base, adapter, path, failure) from failure
        log.info("vllm.loaded", model=adapter.name, url=at.url, name=name)

    async def _shrink(self, server: str, at: Endpoint) -> None:
        """Unload what is beyond the bound and nobody is asking."""
        there = [
            (key, slot) for key, slot in self._slots.items() if key[0] == server and slot.is_loaded and slot.url == at.url
        ]
        n_over = len(there) - self._n_most
        idle = [key for key, slot in there if not slot.n_users and not slot.lock.locked()]
        for _, name in idle[: max(0, n_over)]:
            await self._unload(server, at, name)

    async def _unload(self, server: str, at: Endpoint, name: str) -> None:
        key = (server, name)
        slot = self._slots.setdefault(key, _Slot())
        async with slot.lock:  # who asks for it now waits, and loads it again
            slot.is_loaded = False
            try:
                await self._servers.tell(at, "unload_lora_adapter", {"lora_name": name}, timeout_s=UNLOAD_S)
                log.info("vllm.unloaded", url=at.url, name=name)
            except UpstreamFailed as failure:
                if failure.status != _NOT_FOUND:  # it had forgotten it before
                    log.warning("vllm.not_unloaded", url=at.url, name=name, reason=str(failure))
        self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        slot = self._slots.get(key)
        if slot is not None and not slot.is_loaded and not slot.n_users and not slot.lock.locked():
            del self._slots[key]

    def _path_there(self, base: Base, adapter: Adapter) -> str:
        """Return the path under which the server sees an adapter's folder."""
        there = None if base.upstream is None else base.upstream.adapters_dir
        if there is None:
            return adapter.path
        return str(PurePosixPath(there, Path(adapter.path).relative_to(self._blobs).as_posix()))

    def _refused(self, base: Base, adapter: Adapter, path: str, failure: UpstreamFailed) -> ApiError:
        """Return what to say of an adapter that a server does not take, with the way out."""
        reason = failure.reason
        if failure.status in _KEY_REFUSED:
            return failed(base, failure)
        if _NO_FOLDER.search(reason):
            way_out = (
                f"It has to see the adapter's folder at {path}: mount {self._blobs} there, and say under which path by "
                f"`tunesmith models add {base.name} {base.source} --upstream {base.url} --kind vllm --adapters-dir PATH`."
            )
        elif _NO_LORA.search(reason):
            way_out = "Start it with --enable-lora."
        elif failure.status == _NOT_FOUND:
            way_out = "Start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment."
        elif _RANK.search(reason):
            way_out = (
                "Start it with a --max-lora-rank that is no less than the rank of the adapter, or tune with a lower rank."
            )
        elif failure.passing:
            return failed(base, failure)
        else:
            way_out = "What it takes stands in the documentation of vLLM's LoRA adapters."
        said = f"The vLLM server of {base.name} does not load the adapter of {adapter.name}"
        return BadGateway(f"{said}: {str(failure).rstrip('.')}. {way_out}")


def name_there(tuned: str, sha256: str) -> str:
    """Return an adapter's name at a server: it changes with what the adapter holds, and no cache takes one for another."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', tuned)[:_N_NAME]}-{sha256[:_N_SHA256]}"
