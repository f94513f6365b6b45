"""One process that answers for a base: started, waited for, known to be gone as soon as it is, whichever event loop asks.

A process is told by the kernel when the *thread* that started it ends, so all of them are started by one thread that
lives as long as their keeper (`Starter`); a thread of each process's own waits for its first line and for its end.
"""

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import structlog

from tunesmith.core.environment import passed_on
from tunesmith.core.errors import Unavailable
from tunesmith.core.failpoint import failpoint

log = structlog.get_logger()

#: A large base takes minutes to read from a slow disk.
LOADING_LIMIT_S: Final = 900.0
ROLE: Final = "sampler"
#: How long the end of a dead process's log is waited for, and how much of its last line is told.
_LAST_WORDS_S: Final = 2.0
_LONGEST_WORDS: Final = 300


class Starter:
    """A thread that runs what it is handed, one thing after another, until it is closed."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, order: Callable[[], None]) -> None:
        """Have the thread call `order`; the first call starts the thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="sampler-starter", daemon=True)
            self._thread.start()
        self._orders.put(order)

    def close(self) -> None:
        """End the thread, and with it every process that it started and that still runs."""
        self._orders.put(None)

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            order()


class KeptProcess:
    """A process that answers for one base; `ready` resolves when it serves, `gone` when it is no more."""

    _stdin = subprocess.DEVNULL

    def __init__(self, base_path: str, *, on_gone: Callable[[Any], None]) -> None:
        self.base_path = base_path
        self.ready: Future[None] = Future()
        self.gone: Future[int | None] = Future()
        self.pid: int | None = None
        #: Answers under way, and the monotonic times of the start and of the last use; all are the keeper's.
        self.n_answering = 0
        self.started_at = 0.0
        self.used_at = 0.0
        #: Who waits for it to serve, by project.
        self.n_loading: Counter[str] = Counter()
        self._on_gone = on_gone
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = threading.Event()
        self._last_words = ""

    def _command(self) -> list[str]:
        """Return what is started: it prints `ready` when it serves, or one line `{"error": …}`, and logs to stderr."""
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        """Return the environment that it is started in."""
        raise NotImplementedError

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        """End a process that was started, at once."""
        process.kill()

    def _left(self) -> None:
        """Tidy up behind a process that is gone."""

    def start(self) -> None:
        """Start the process; to be called on the thread whose end is to be its end."""
        try:
            failpoint("sampler.spawn")
            self._process = subprocess.Popen(
                self._command(),
                stdin=self._stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment(),
                start_new_session=True,
            )
        except OSError as error:
            self._end(None, f"no process could be started: {error}")
            return
        self.pid = self._process.pid
        if self._killed.is_set():
            self._stop(self._process)
        threading.Thread(target=self._watch, args=(self._process,), name=f"sampler-{self.pid}", daemon=True).start()

    def kill(self) -> None:
        """End the process at once; `gone` tells when it has ended."""
        self._killed.set()
        if self._process is not None:
            self._stop(self._process)

    @property
    def killed(self) -> bool:
        """Whether its end was ours to decide."""
        return self._killed.is_set()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        limit = threading.Timer(LOADING_LIMIT_S, self._stop, [process])
        limit.daemon = True
        limit.start()
        assert process.stdout is not None
        log_reader = threading.Thread(target=self._pass_on_log, args=(process,), name=f"log-{process.pid}", daemon=True)
        log_reader.start()
        with process.stdout as stdout:
            said = stdout.readline()
            limit.cancel()
            if said.strip() == b"ready":
                log.info("sampler.ready", base=self.base_path, pid=process.pid)
                self.ready.set_result(None)
            code = process.wait()
        log_reader.join(_LAST_WORDS_S)
        self._end(code, _reason(said) or f"its process ended with code {code}{self._last_words}")

    def _pass_on_log(self, process: subprocess.Popen[bytes]) -> None:
        """Hand what the process logs to our own log, and keep its last line: the reason, should it not come to serve."""
        assert process.stderr is not None
        with process.stderr as stderr:
            for line in stderr:
                text = line.decode(errors="replace").strip()
                if text:
                    self._last_words = f" ({text.rstrip('.')[:_LONGEST_WORDS]})"
                    self._relay(text)

    def _relay(self, text: str) -> None:
        try:
            said: dict[str, Any] = json.loads(text)
            event, level = said.pop("event"), said.pop("level")
            said.pop("timestamp", None)
        except (ValueError, KeyError, TypeError, AttributeError):
            event, level, said = "sampler.said", "warning", {"line": text}  # no line of a log: a library's, or a traceback
        log.log(
            logging.getLevelNamesMapping().get(str(level).upper(), logging.WARNING),
            event,
            **{"base": self.base_path, "pid": self.pid, **said},
        )

    def _end(self, code: int | None, reason: str) -> None:
        self._left()
        if not self.ready.done():
            what = "it was stopped" if self.killed else reason
            self.ready.set_exception(Unavailable(f"The base model in {self.base_path} could not be loaded: {what}."))
        self.gone.set_result(code)
        self._on_gone(self)


class SamplerProcess(KeptProcess):
    """A process of ours that samples from one base, or makes embeddings with it."""

    def __init__(
        self,
        base_path: str,
        socket: Path,
        *,
        threads: int,
        queue: int,
        on_gone: Callable[["SamplerProcess"], None],
        embedding: bool = False,
    ) -> None:
        super().__init__(base_path, on_gone=on_gone)
        self.socket = socket
        self._threads = threads
        self._queue = queue
        self.embedding = embedding

    def _command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "tunesmith.sampler", "--base", self.base_path),
            *("--socket", str(self.socket), "--parent", str(os.getpid()), "--threads", str(self._threads)),
            *("--queue", str(self._queue), *(["--embedding"] * self.embedding)),
        ]

    def _environment(self) -> dict[str, str]:
        return {**passed_on(), "OMP_NUM_THREADS": str(self._threads), "TUNESMITH_ROLE": ROLE}

    def _left(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.unlink(missing_ok=True)


def _reason(said: bytes) -> str | None:
    """Return what a process said instead of `ready`."""
    try:
        return str(json.loads(said)["error"]).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return None
