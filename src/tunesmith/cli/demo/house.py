"""The server that the demonstration starts for itself: a fresh data folder, a free port, and a clean end."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tunesmith.cli.client import fail

READY: Final = "Tunesmith is ready at "
SERVE: Final = (sys.executable, "-m", "tunesmith", "serve", "--port", "0")
START_S: Final = 120.0
STOP_S: Final = 10.0
_PR_SET_PDEATHSIG: Final = 1


class House:
    """A running server; a context manager that leaves no process behind. `base_url` is what the `openai` package gets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self.base_url = ""
        #: Jobs whose processes are looked for at the end.
        self.jobs: list[str] = []

    def __enter__(self) -> Self:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TUNESMITH_")}
        with (self._folder / "server.log").open("w") as log:
            self._process = subprocess.Popen(
                [*SERVE, "--data-dir", str(self._folder / "data")],
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the demonstration, which then ends the server
                preexec_fn=_die_with_parent(),
            )
        limit = threading.Timer(START_S, self._process.kill)  # its end is the end of its lines, below
        limit.daemon = True
        limit.start()
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(READY):
                limit.cancel()
                self.base_url = line.removeprefix(READY).strip()
                return self
        limit.cancel()
        self._stop()
        last = (self._folder / "server.log").read_text(errors="replace").strip().splitlines()
        when = f" within {START_S:.0f} s" if self._process.returncode == -signal.SIGKILL else ""
        return fail(f"The server did not start{when}: {last[-1] if last else 'it said nothing'}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        for job in self.jobs:
            for pid in tagged_processes(job):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _die_with_parent() -> Callable[[], None] | None:
    """Return what makes a child end when its parent is killed and cannot end it; None where the system has no such thing."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask


def tagged_processes(job: str) -> list[int]:
    """Return the processes that carry a job's tag in their environment, as anyone on the machine can see them."""
    tag = f"TUNESMITH_JOB={job}".encode()
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            gone = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
        if tag in variables and not gone:
            found.append(int(folder.name))
    return found


def wait_until_gone(job: str, limit_s: float) -> float | None:
    """Wait until no process carries the job's tag; return the seconds that took, or None when the limit came first."""
    began = time.monotonic()
    while tagged_processes(job):
        if time.monotonic() - began > limit_s:
            return None
        time.sleep(0.002)
    return time.monotonic() - began
