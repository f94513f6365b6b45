"""One attempt's supervisor: runs the worker, forwards its reports, and leaves nothing of it alive.

`python -m tunesmith.supervisor.main TASK_JSON`. SIGTERM and SIGINT kill the whole tree at once. When the tree is gone,
`exit.json` in the task's folder tells how it ended; the report `exited` is the last line of the spool.
"""

import contextlib
import json
import os
import select
import signal
import sys
import traceback
from types import TracebackType
from typing import Any, Final

from tunesmith.core.channel import EXITED, FOLDER_REMOVED, PROTOCOL, READY, STOPPED, Report, Task
from tunesmith.core.clock import Clock, SystemClock
from tunesmith.core.failpoint import failpoint
from tunesmith.supervisor import child, memory, tree
from tunesmith.supervisor.channel import Channel
from tunesmith.supervisor.spool import Forwarder, Spool
from tunesmith.supervisor.watchdog import Watchdog

#: How long the supervisor of an ended worker waits for a server that is away; what is unsent then stays in the spool.
LINGER_S: Final = 10.0
_STDERR_TAIL: Final = 4000
#: What a spare's worker says when its task came before it was ready; no report.
_READY: Final = READY.encode()


class Supervisor:
    """The owner of one attempt's processes."""

    def __init__(self, task: Task, clock: Clock) -> None:
        self._task = task
        self._clock = clock
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if tree.LINUX else _plain_pipe()
        self._killing = False
        #: Why the tree is killed.
        self._cause: str | None = None
        self._desired = "run"
        self._torn = b""
        self._n_oom_kills = memory.n_oom_kills()
        self._spool = Spool(task.folder)
        self._channel = Channel(task.socket, job=task.job, attempt=task.attempt, token=task.token)

    def run(self, command: list[str]) -> int:
        """Run the worker to its end, or kill it when asked; returns when its tree is gone and told of."""
        tree.adopt_orphans()
        self.listen_to_signals()
        failpoint("supervisor.spawn")
        log = self._log()
        worker = child.start(command, log=log)
        os.close(log)
        return self.watch(worker)

    def watch(self, worker: child.Child, *, first: str | None = None) -> int:
        """Go on as `run` does with a worker that was started before; `first` is told to it before everything else."""
        os.close(self._log())  # it is read at the end, whether or not the worker came to write to it
        forwarder = Forwarder(self._spool, self._channel, self._clock, on_desired=self._wish, on_over=self._end)
        watchdog = Watchdog(
            self._channel,
            self._clock,
            folder=self._task.folder,
            silence_limit_s=self._task.silence_limit_s,
            on_desired=self._wish,
            on_over=self._end,
        )
        if first is not None:
            _tell(worker, first)
        forwarder.start()
        watchdog.start()
        try:
            status = self._pump(worker)
        finally:
            tree.kill_descendants(None if tree.LINUX else worker.pid)
        self._drain_reports(worker)
        watchdog.end()
        if self._cause != FOLDER_REMOVED:
            self._record(status)
        if not self._killing:
            self._spool.drain(LINGER_S)
        return 0

    def listen_to_signals(self) -> None:
        """Take the signals that end the attempt, and those that tell of its worker."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._asked_to_end)
        signal.signal(signal.SIGCHLD, self._child_ended)

    def _log(self) -> int:
        return os.open(f"{self._task.folder}/stderr.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _child_ended(self, *_: object) -> None:
        """Do nothing: that the signal is caught wakes the main loop, which collects the dead."""

    def _asked_to_end(self, *_: object) -> None:
        self._cause = self._cause or STOPPED

    def _end(self, cause: str) -> None:
        """Note, from another thread, that this attempt is over, and why."""
        self._cause = self._cause or cause
        self._wake()

    def _wish(self, desired: str) -> None:
        """Note, from another thread, what the job's owner wants; the main thread tells the worker."""
        if desired != self._desired:
            self._desired = desired
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def _pump(self, worker: child.Child) -> int | None:
        """Move reports to the spool until the worker ends or is to be killed; return its wait status, None if killed."""
        told = "run"
        watched = [self._wake_read, worker.reports]
        status = _reap(worker.pid)  # one that was started before may have ended before its end could wake us
        while status is None and self._cause is None:
            ready, _, _ = select.select(watched, [], [], 60.0)
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            if self._cause is not None:
                break
            if self._desired != told:
                told = self._desired
                _tell(worker, json.dumps({"version": PROTOCOL, "desired": told}))
            if worker.reports in ready and not self._take_reports(worker):
                watched = [self._wake_read]
            status = _reap(worker.pid)
        if status is None:
            self._killing = True
        return status

    def _take_reports(self, worker: child.Child) -> bool:
        """Read what the worker wrote; False at the end of the pipe."""
        text = os.read(worker.reports, 1 << 16)
        *lines, self._torn = (self._torn + text).split(b"\n")
        whole = [line for line in lines if line != _READY]
        if whole:
            self._spool.append(whole)
        return bool(text)

    def _drain_reports(self, worker: child.Child) -> None:
        """Read what the dead worker left in the pipe; everyone who could write to it is gone."""
        while self._take_reports(worker):
            pass

    def _record(self, status: int | None) -> None:
        ended = _ending(status)
        ended["killed"] = self._killing
        ended["cause"] = self._cause if self._killing else None
        by_another = ended["signal"] == signal.SIGKILL and not self._killing
        ended["out_of_memory"] = by_another and memory.n_oom_kills() > self._n_oom_kills
        ended["stderr_tail"] = _tail(f"{self._task.folder}/stderr.log")
        now = self._clock.now()
        path = f"{self._task.folder}/exit.json"
        with open(path + ".part", "w") as file:  # noqa: PTH123 - as in tree.py
            json.dump({"version": PROTOCOL, "ended_at": now, **ended}, file)
            file.flush()
            os.fsync(file.fileno())
        failpoint("exit.rename")
        os.rename(path + ".part", path)  # noqa: PTH104 - as in tree.py
        report = Report(EXITED, self._task.job, self._task.attempt, f"exit-{self._task.attempt}", now, ended)
        self._spool.append([report.to_json().encode()])


def _plain_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    return reading, writing


def _tell(worker: child.Child, line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(worker.control, os.fsencode(line + "\n"))


def _reap(worker: int) -> int | None:
    """Collect the dead, adopted orphans among them; return the worker's wait status once it is one of them."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == worker:
            return status
        if pid == 0:
            return None


def _ending(status: int | None) -> dict[str, Any]:
    if status is None:
        return {"exit_code": None, "signal": int(signal.SIGKILL)}
    if os.WIFSIGNALED(status):
        return {"exit_code": None, "signal": os.WTERMSIG(status)}
    return {"exit_code": os.WEXITSTATUS(status), "signal": None}


def _tail(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123 - as in tree.py
        file.seek(max(0, os.fstat(file.fileno()).st_size - _STDERR_TAIL))
        return file.read().decode(errors="replace")


def tell_crashes(task: Task) -> None:
    """Let this process's log name the attempt, should it fail: one line of JSON, as in every other log."""

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        line = {"event": "supervisor.crashed", "level": "error", "job": task.job, "attempt": task.attempt, "exception": text}
        os.write(2, (json.dumps(line) + "\n").encode())

    sys.excepthook = tell


def main(arguments: list[str]) -> int:
    """Supervise the task whose file is named; everything after it is the worker's command (the product's by default)."""
    with open(arguments[0]) as file:  # noqa: PTH123 - as in tree.py
        task = Task.from_json(file.read())
    tell_crashes(task)
    command = arguments[1:] or [sys.executable, "-m", "tunesmith.worker.run", arguments[0]]
    return Supervisor(task, SystemClock()).run(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
