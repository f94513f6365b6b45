"""A supervisor with a worker of the test's own, and the server's end of its socket, scripted."""

import http.server
import json
import os
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from laws.leaks import watched
from tunesmith.core.channel import Task
from tunesmith.supervisor import tree

PATIENCE_S = 60.0
PROGRAMS = Path(__file__).parent / "programs"


def _eventually(condition: Callable[[], Any], what: str, *, within_s: float = PATIENCE_S) -> Any:
    """Wait for a condition and return its value; fail with what was waited for."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    pytest.fail(f"not within {within_s} s: {what}")


class Answers(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The server's end: answers with `status` and `desired`, remembers what it was told."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: str) -> None:
        self.status = 200
        self.desired = "run"
        self.batches: list[list[dict[str, Any]]] = []
        self.n_beats = 0
        self.tokens: set[str] = set()
        super().__init__(path, _Door)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def reports(self) -> list[dict[str, Any]]:
        return [report for batch in self.batches for report in batch]

    def kinds(self) -> list[str]:
        return [report["kind"] for report in self.reports]


class _Door(http.server.BaseHTTPRequestHandler):
    server: Answers

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.tokens.add(self.headers["Authorization"])
        if self.server.status == 200:
            if self.path.endswith("/reports"):
                self.server.batches.append(body["reports"])
            else:
                self.server.n_beats += 1
        answer = json.dumps({"desired": self.server.desired}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def address_string(self) -> str:
        return "a supervisor"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Attempt:
    """One attempt: its task, its folder, its supervisor once started."""

    def __init__(self, folder: Path, socket_path: str, number: int) -> None:
        self.folder = folder
        self.job = f"ftjob-test{os.getpid()}x{number}"
        self.socket_path = socket_path
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        program: str,
        *arguments: str,
        command: list[str] | None = None,
        silence_limit_s: float | None = None,
        main: tuple[str, ...] = ("-m", "tunesmith.supervisor.main"),
    ) -> int:
        """Start the supervisor over one of `programs/` and return the supervisor's pid."""
        task = Task("train", self.job, 1, "secret", self.socket_path, str(self.folder), {}, silence_limit_s=silence_limit_s)
        task_file = self.folder / "task.json"
        task_file.write_text(task.to_json())
        worker = command or [sys.executable, "-S", str(PROGRAMS / f"{program}.py"), *arguments]
        with (self.folder / "supervisor.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *main, str(task_file), *worker],
                env={**os.environ, tree.JOB_TAG: self.job, tree.ATTEMPT_TAG: "1"},
                start_new_session=True,
                stderr=log,
            )
        return self.process.pid

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(PATIENCE_S)

    def pids(self) -> set[int]:
        return {process.pid for process in tree.tagged(self.job)}

    def ended(self) -> dict[str, Any]:
        return json.loads((self.folder / "exit.json").read_text())


@pytest.fixture
def eventually() -> Callable[..., Any]:
    return _eventually


@pytest.fixture
def socket_path() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield f"{folder}/c.sock"


@pytest.fixture
def server(socket_path: str) -> Iterator[Answers]:
    answers = Answers(socket_path)
    yield answers
    answers.shutdown()
    answers.server_close()


@pytest.fixture
def attempt(tmp_path: Path, socket_path: str) -> Iterator[Attempt]:
    made = Attempt(tmp_path, socket_path, id(tmp_path) % 10_000)
    yield made
    tree.sweep(made.job)
    if made.process is not None:
        if made.process.poll() is None:
            made.process.send_signal(signal.SIGKILL)
        made.process.wait(PATIENCE_S)


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    with watched(tmp_path):
        yield
