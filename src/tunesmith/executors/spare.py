"""One spare of the local executor: a supervisor that waits at a pipe of ours for its task, with a worker ready for it."""

import contextlib
import math
import os
import select
import signal
from collections.abc import Iterable, Mapping
from typing import Final

from tunesmith.core.channel import READY, TAKEN
from tunesmith.core.failpoint import failpoint
from tunesmith.core.machine import process_bytes
from tunesmith.supervisor import tree

#: A supervisor that has not taken a task after this time is stopped or starving; it is killed.
HAND_OVER_S: Final = 1.0


def readable(descriptors: Iterable[int], timeout_s: float | None) -> set[int]:
    """Wait until one can be read, or is at its end, and return those; also of numbers that are too large for `select`."""
    looks = select.poll()
    for descriptor in descriptors:
        looks.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in looks.poll(None if timeout_s is None else math.ceil(1000 * timeout_s))}


class LocalSpare:
    """A spare's processes and both pipes; it leaves when the pipe that it reads is closed, by whatever closes it."""

    def __init__(self, kind: str, *, python: str, threads: int, environment: Mapping[str, str]) -> None:
        self.kind = kind
        self.ready = False
        self._worker_pid: int | None = None
        self._said = b""
        read, self._tasks = os.pipe()
        self.answers, write = os.pipe()
        failpoint("executor.spawn_spare")
        try:
            self.pid = os.posix_spawn(
                python,
                [python, "-m", "tunesmith.supervisor.spare", kind, str(threads)],
                dict(environment),
                file_actions=[(os.POSIX_SPAWN_DUP2, read, 0), (os.POSIX_SPAWN_DUP2, write, 1)],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
            )
        except OSError:
            self.let_go()
            raise
        finally:
            os.close(read)
            os.close(write)
        self.start_time = tree.start_time(self.pid) or 0

    def listen(self) -> bool:
        """Read what it answered; False when it is no more."""
        text = os.read(self.answers, 4096)
        *lines, self._said = (self._said + text).split(b"\n")
        for line in lines:
            word, _, pid = line.decode().partition(" ")
            if word == READY:
                self.ready, self._worker_pid = True, int(pid)
        return bool(text)

    @property
    def memory_bytes(self) -> int:
        """The memory of supervisor and worker; what is not ready yet is not counted."""
        return process_bytes(self.pid) + process_bytes(self._worker_pid) if self._worker_pid is not None else 0

    def hand_over(self, task_file: str) -> bool:
        """Give it its task; False when it did not take it, and then no process of it will ever work for it.

        What it answers, also by its end, tells: its worker is told of the task after the answer, not before.
        """
        try:
            failpoint("executor.hand_over")
            os.write(self._tasks, os.fsencode(task_file) + b"\n")
        except BrokenPipeError:
            self._collect()
            return False
        if self._answered(HAND_OVER_S):
            failpoint("executor.handed_over")
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # not collected yet, so the number is still its own
        taken = self._answered(None)
        if not taken:
            self._collect()
        return taken

    def _answered(self, timeout_s: float | None) -> bool:
        """Wait for the answer, or for its supervisor's end; say whether the task was taken."""
        while readable([self.answers], timeout_s):
            text = os.read(self.answers, 4096)
            self._said += text
            if f"{TAKEN}\n".encode() in self._said:
                return True
            if not text:
                return False
        return False

    def let_go(self) -> None:
        """Close the pipes: what has no task leaves, what has one works on."""
        for descriptor in (self._tasks, self.answers):
            os.close(descriptor)

    def end(self) -> None:
        """Let a spare go that has no task, and wait until it is gone; killed if it must be."""
        os.close(self._tasks)
        self._answered(HAND_OVER_S)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.close(self.answers)
        self._collect()

    def _collect(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
