"""vLLM servers that are ours: started with the first request for their base, on a loopback port, with a key of their own."""

import os
import secrets
import shlex
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from tunesmith.core.clock import Clock
from tunesmith.core.environment import passed_on
from tunesmith.core.machine import process_bytes
from tunesmith.core.settings import Settings
from tunesmith.data.calls import CALL
from tunesmith.data.folder import chat_template
from tunesmith.domain.ports import Endpoint
from tunesmith.domain.sampler import Sampler
from tunesmith.domain.serving import OWN_MODEL, OwnServer
from tunesmith.inference.keeper import Keeper
from tunesmith.inference.process import KeptProcess
from tunesmith.supervisor.tree import descendants

#: Ranks of adapters that it takes; more of them in one batch cost memory.
MAX_RANK: Final = 64
N_IN_BATCH: Final = 4
_ENVIRONMENT: Final[Mapping[str, str]] = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


class VllmProcess(KeptProcess):
    """A vLLM server in its own environment, on a leash of ours."""

    _stdin = subprocess.PIPE

    def __init__(
        self, base_path: str, scratch: Path, settings: Settings, *, on_gone: Callable[["VllmProcess"], None]
    ) -> None:
        super().__init__(base_path, on_gone=on_gone)
        self._scratch = scratch
        self._settings = settings
        self._port = _free_port()
        self._key = secrets.token_urlsafe(32)

    @property
    def at(self) -> Endpoint:
        """Where it is asked."""
        return Endpoint(f"http://127.0.0.1:{self._port}/v1", self._key)

    def _command(self) -> list[str]:
        with_calls = CALL in (chat_template(Path(self.base_path)) or "")
        return [
            *(
                sys.executable,
                "-m",
                "tunesmith.supervisor.leash",
                f"http://127.0.0.1:{self._port}/health",
                str(self._scratch),
            ),
            *(str(self._settings.vllm_python), "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", self.base_path, "--served-model-name", OWN_MODEL, "--host", "127.0.0.1", "--port", str(self._port)),
            *("--enable-lora", "--max-lora-rank", str(MAX_RANK), "--max-loras", str(N_IN_BATCH)),
            *("--max-cpu-loras", str(max(N_IN_BATCH, self._settings.vllm_adapters)), "--uvicorn-log-level", "warning"),
            *(["--enable-auto-tool-choice", "--tool-call-parser", "hermes"] * with_calls),
            *shlex.split(self._settings.vllm_flags or ""),
        ]

    def _environment(self) -> dict[str, str]:
        told = {name: value for name, value in os.environ.items() if name.startswith("VLLM_")}
        return {**passed_on(), **_ENVIRONMENT, **told, "VLLM_API_KEY": self._key, "TUNESMITH_ROLE": "vllm"}

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()  # upon which the leash ends it with all its processes, and itself

    def _left(self) -> None:
        if self._process is not None:
            self._stop(self._process)


class VllmServers(Keeper[VllmProcess]):
    """The `OwnServers` port: a vLLM server for each base that is served so; `folder` holds their temporary files."""

    def __init__(self, folder: Path, *, settings: Settings, clock: Clock) -> None:
        super().__init__(settings=settings, clock=clock)
        self._folder = folder
        self._settings = settings

    @property
    def available(self) -> bool:
        """Whether there is a vLLM to start."""
        return self._settings.vllm_python is not None

    @asynccontextmanager
    async def serving(self, base_path: str) -> AsyncGenerator[Endpoint]:
        """Have a base's server serve for the length of a block; it is started where it does not yet.

        Raises:
            Unavailable: it cannot be started, or does not come to serve.
        """
        async with self.using(base_path) as process:
            yield process.at

    async def bury(self, base_path: str, at: Endpoint) -> None:
        """End a base's server, if it is still the one at this place."""
        with self._lock:
            place = self._places.get(base_path)
        if place is not None and place.process.at == at:
            place.process.kill()
            await self._bury(place.process)

    def seen(self, base_path: str) -> OwnServer | None:
        """Return a base's server; None where it is not started."""
        with self._lock:
            place = self._places.get(base_path)
            return None if place is None else OwnServer(place.process.at, place.process.ready.done())

    def _made(self, base_path: str) -> VllmProcess:
        scratch = self._folder / f"vllm-{os.getpid()}-{self._n_started}"
        return VllmProcess(base_path, scratch, self._settings, on_gone=self._left)

    async def samplers(self) -> list[Sampler]:
        """Return every server there is, those too that are being started."""
        with self._lock:
            processes = [place.process for place in self._places.values()]
        return [_seen(process) for process in processes]


def _seen(process: VllmProcess) -> Sampler:
    ready = process.ready.done()
    return Sampler(
        base_path=process.base_path,
        kind="vllm",
        status="ready" if ready else "loading",
        pid=process.pid,
        rows=process.n_answering if ready else 0,
        waiting=0 if ready else process.n_answering,
        adapters=(),
        cache_bytes=0,
        memory_bytes=0 if process.pid is None else sum(map(process_bytes, (process.pid, *descendants(process.pid)))),
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
