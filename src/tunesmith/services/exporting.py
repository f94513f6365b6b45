"""Models for others to load: a tuned model as an adapter, merged weights or a GGUF file, a base as the last two.

The merging needs torch, so it is done by a process of its own (`tunesmith.lm.export`), whose output is handed on as it
comes: nothing is kept here. The process ends with whoever reads from it, and with the server.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from importlib.metadata import version
from typing import IO, Any, Final

import structlog
from anyio import to_thread

from tunesmith.core.environment import passed_on
from tunesmith.core.errors import InvalidRequest, Unavailable
from tunesmith.core.failpoint import failpoint
from tunesmith.domain.model import Base, TunedModel
from tunesmith.domain.ports import Blobs
from tunesmith.domain.scope import Project
from tunesmith.services.bases import Bases
from tunesmith.services.chat import Chat
from tunesmith.services.permissions import Shared
from tunesmith.store import models
from tunesmith.store.session import Database

FORMATS: Final = ("adapter", "merged", "gguf")
TYPES: Final = ("auto", "bf16", "f16", "f32")
#: How many are written at once; each keeps an adapter and one tensor in memory, and computes.
_N_AT_ONCE: Final = 2
_N_CHUNK_BYTES: Final = 1024 * 1024
_N_LINE_BYTES: Final = 1024 * 1024

log = structlog.get_logger()


@dataclass(slots=True)
class Export:
    """What is being written. `close` has to be called, whether `chunks` were read or not."""

    #: A tar is unpacked into a folder of that name.
    filename: str
    media_type: str
    n_bytes: int
    _process: asyncio.subprocess.Process
    _turn: contextlib.AsyncExitStack

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the bytes.

        Raises:
            Unavailable: the process ended before the last one.
        """
        assert self._process.stdout is not None
        n_left = self.n_bytes
        while n_left:
            chunk = await self._process.stdout.read(_N_CHUNK_BYTES)
            if not chunk:
                raise Unavailable(f"The export of {self.filename} broke off with {n_left} bytes left.")
            n_left -= len(chunk)
            yield chunk

    async def close(self) -> None:
        """End the process, if it has not ended by itself."""
        await self._turn.aclose()


class Exports:
    """Writes the models that a project sees."""

    def __init__(self, *, db: Database, bases: Bases, blobs: Blobs, chat: Chat) -> None:
        self._db = db
        self._bases = bases
        self._blobs = blobs
        self._chat = chat
        self._turns = asyncio.Semaphore(_N_AT_ONCE)
        self._running: set[asyncio.subprocess.Process] = set()

    async def open(self, scope: Project, name: str, wanted: str, number_type: str) -> Export:
        """Begin to write a model, one of `FORMATS`; `number_type` is one of `TYPES`, for a GGUF file alone.

        Raises:
            UnknownModel: no such model in this project.
            Shared: the model is another project's.
            InvalidRequest: it is no model of this server's files, is not in order, or cannot be written in this form.
        """
        await self._chat.check(scope, name)
        base, tuned = await to_thread.run_sync(self._found, scope, name)
        if not base.tunable:
            raise InvalidRequest(f"{name} is a model of the server {base.source}: its files are there.", param="model")
        if tuned is None and wanted == "adapter":
            raise InvalidRequest(
                f"{name} is a base model and has no adapter: 'merged' and 'gguf' are its formats - 'format'", param="format"
            )
        if wanted != "gguf" and number_type != "auto":
            raise InvalidRequest(
                f"'type' chooses the numbers of a GGUF file; '{wanted}' keeps those of the base: leave it out - 'type'",
                param="type",
            )
        order = self._order(base, tuned, wanted, number_type)
        async with contextlib.AsyncExitStack() as turn:
            await turn.enter_async_context(self._turns)
            process, n_bytes = await self._begun(turn, order)
            log.info("model.export", model=order["name"], format=wanted, bytes=n_bytes)
            filename = re.sub(r"[^A-Za-z0-9._-]+", "-", order["name"]) + (".gguf" if wanted == "gguf" else f"-{wanted}.tar")
            media_type = "application/octet-stream" if wanted == "gguf" else "application/x-tar"
            return Export(filename, media_type, n_bytes, process, turn.pop_all())

    def close(self) -> None:
        """End what is being written; whoever reads it sees that it broke off."""
        for process in self._running:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

    async def _begun(self, turn: contextlib.AsyncExitStack, order: dict[str, Any]) -> tuple[asyncio.subprocess.Process, int]:
        """Start the process, which ends with `turn`, and return it with the number of bytes that it is about to write."""
        said = turn.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the turn closes it
        failpoint("export.spawn")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tunesmith.lm.export"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
            env={**passed_on(), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TUNESMITH_ROLE": "export"},
            limit=_N_LINE_BYTES,
        )
        turn.push_async_callback(_end, process)
        self._running.add(process)
        turn.callback(self._running.discard, process)
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):  # it is gone: its last words tell why
            process.stdin.write(json.dumps(order).encode())
            await process.stdin.drain()
        process.stdin.close()
        line = await process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
        if "refused" in answer:
            raise InvalidRequest(
                f"{order['name']} cannot be written as {order['format']}: {answer['refused']}.", param="format"
            )
        if "bytes" not in answer:
            raise Unavailable(f"The export of {order['name']} ended before it began: {_last_words(said)}.")
        return process, int(answer["bytes"])

    def _found(self, scope: Project, name: str) -> tuple[Base, TunedModel | None]:
        with self._db.read() as tx:
            tuned = models.find(tx, scope, name)
        if tuned is not None and tuned.project_id != scope.project_id:
            raise Shared(name, "taking its files away")
        if tuned is not None:
            return self._bases.get(tuned.base), tuned
        base = self._bases.find(name)
        assert base is not None, "it was found a moment ago"
        return base, None

    def _order(self, base: Base, tuned: TunedModel | None, wanted: str, number_type: str) -> dict[str, Any]:
        reference, revision = _reference(base)
        return {
            "format": wanted,
            "type": number_type,
            "name": base.name if tuned is None else tuned.name,
            "base": base.path,
            "base_reference": reference,
            "revision": revision,
            "adapter": None if tuned is None else str(self._blobs.path(tuned.adapter_key)),
            "sha256": None if tuned is None else tuned.sha256,
            "readme": _readme(base, tuned, wanted),
            "parent": os.getpid(),
        }


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.stdout is not None
    while await process.stdout.read(_N_CHUNK_BYTES):  # what is left in the pipe would keep it open
        pass
    await process.wait()


def _last_words(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return lines[-1].rstrip(".") if lines else "its process was killed"


def _reference(base: Base) -> tuple[str, str | None]:
    """Return the name and the revision by which others find the base: a hub's where it came from one."""
    if base.kind != "hub":
        return (base.name if base.kind == "embedded" else base.path), None
    name, _, revision = base.source.partition("@")
    return name, revision or None


def _readme(base: Base, tuned: TunedModel | None, wanted: str) -> str:
    reference, revision = _reference(base)
    at = f" at revision `{revision}`" if revision else ""
    pins = "\n".join(f"| {part} | `{digest}` |" for part, digest in base.pins.items())
    use = (
        "Load the base with `transformers`, then this folder with `peft`: `PeftModel.from_pretrained(base, FOLDER)`."
        if wanted == "adapter"
        else "Load this folder with `transformers`: `AutoModelForCausalLM.from_pretrained(FOLDER)`."
    )
    what = f"The base model {base.name}"
    if tuned is not None:
        made = f"fine-tuning job `{tuned.job_id}`" + (f", its checkpoint of step {tuned.step}" if tuned.step else "")
        how = "A LoRA adapter" if wanted == "adapter" else "A whole model, the adapter merged into the base's weights"
        what = f"{how}, made by {made}, of the base model `{reference}`{at}"
    where = f"To get the base's files: `tunesmith models export {base.name} --format merged --output FOLDER`.\n\n"
    return (
        f"# {base.name if tuned is None else tuned.name}\n\n{what}.\n\n{use}\n\n{where if base.kind == 'embedded' else ''}"
        f"| sha256 of the base's | |\n|---|---|\n{pins}\n"
        + ("" if tuned is None else f"\nsha256 of the adapter's weights: `{tuned.sha256}`.\n")
        + f"\nWritten by Tunesmith {version('tunesmith')}.\n"
    )
