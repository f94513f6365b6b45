"""Runs the process that reads a job's files for a dry run: a few at a time, bounded in time and memory, no torch in it."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from dataclasses import replace
from typing import Any, Final

import structlog

from tunesmith.core.environment import passed_on
from tunesmith.core.errors import RateLimited, Unavailable
from tunesmith.core.failpoint import failpoint
from tunesmith.domain.tasks import DryRunSpec

#: How many run at once, and how many may wait for their turn.
_N_AT_ONCE: Final = 2
_N_WAITING: Final = 8
#: Seconds beyond the time for reading: the start of the process, the batch that it is at, adding up.
_GRACE_S: Final = 30.0
_RETRY_S: Final = 5

log = structlog.get_logger()


class Surveys:
    """The processes that read, each of which ends with whoever waits for it, and with the server."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_N_AT_ONCE)
        self._n_asked = 0
        self._running: set[asyncio.subprocess.Process] = set()

    async def run(self, spec: DryRunSpec) -> dict[str, Any]:
        """Return what the process tells.

        Raises:
            RateLimited: too many wait already.
            Unavailable: the process ended without an answer, or took too long.
        """
        if self._n_asked >= _N_AT_ONCE + _N_WAITING:
            raise RateLimited(
                f"{self._n_asked} dry runs are being made or waiting already. Ask again in some seconds.",
                retry_after_s=_RETRY_S,
            )
        self._n_asked += 1
        try:
            async with self._turns:
                return await self._read(replace(spec, parent=os.getpid()))
        finally:
            self._n_asked -= 1

    async def _read(self, spec: DryRunSpec) -> dict[str, Any]:
        failpoint("preflight.spawn")
        with tempfile.TemporaryFile() as said:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tunesmith.worker.preflight"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=said,
                env={**passed_on(), "HF_HUB_OFFLINE": "1", "RAYON_NUM_THREADS": "1", "TUNESMITH_ROLE": "preflight"},
            )
            self._running.add(process)
            try:
                async with asyncio.timeout(spec.seconds + _GRACE_S):
                    told, _ = await process.communicate(json.dumps(spec.to_mapping()).encode())
            except TimeoutError as error:
                raise Unavailable(
                    f"The files were not read within {spec.seconds + _GRACE_S:.0f} s, although reading should end after "
                    f"{spec.seconds:.0f} s (setting preflight_seconds): is the machine overloaded?"
                ) from error
            finally:
                self._running.discard(process)
                await _end(process)
            if process.returncode == 0:
                return json.loads(told)
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
        log.error("preflight.died", returncode=process.returncode, last=lines[-1:] or None)
        raise Unavailable(f"The process that reads the files ended without an answer: {_last(lines, process.returncode)}.")

    def close(self) -> None:
        """End what is being read."""
        for process in self._running:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        assert process.stdout is not None
        while await process.stdout.read(1 << 16):  # what is left in the pipe would keep it open
            pass
        await process.wait()


def _last(lines: list[str], returncode: int | None) -> str:
    if any(line.startswith("MemoryError") for line in lines):
        return "its memory did not suffice, so that a row of the files must be very large"
    return lines[-1].rstrip(".") if lines else f"it was killed ({returncode})"
