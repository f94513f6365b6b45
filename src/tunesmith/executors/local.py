"""Attempts as processes of this machine: one supervisor each, in a session of its own, that outlives this server."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from tunesmith.core.channel import EXITED, Report, Task
from tunesmith.core.environment import passed_on
from tunesmith.core.failpoint import failpoint
from tunesmith.domain.ports import Handle, Outcome
from tunesmith.executors.spares import LocalSpares
from tunesmith.supervisor import tree
from tunesmith.supervisor.spool import unsent

log = structlog.get_logger()


class LocalExecutor:
    """Starts supervisors and kills their trees; `folder` holds `JOB/ATTEMPT/` with the scratch files of every attempt."""

    def __init__(
        self,
        folder: Path,
        *,
        spares: LocalSpares | None = None,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
        boot_id: str | None = None,
    ) -> None:
        self._folder = folder.absolute()
        self._spares = spares
        self._python = python
        self._environment = dict(environment if environment is not None else {})
        self._boot_id = boot_id or tree.boot_id()

    def start(self, task: Task) -> Handle:
        """Start a supervisor for the task and return at once; an attempt that was started is not started twice.

        Raises:
            OSError: the folder cannot be written, or no process can be started.
        """
        folder = self._of(task.job, task.attempt)
        known = self.find(task.job, task.attempt)
        if known is not None:
            return known
        folder.mkdir(parents=True, exist_ok=True)
        task_file = folder / "task.json"
        _write(task_file, task.to_json())
        warm = self._hand_over(task, folder, str(task_file))
        handle = warm if warm is not None else self._start_cold(task, folder, str(task_file))
        log.info(
            "attempt.started", job=task.job, attempt=task.attempt, kind=task.kind, pid=handle.pid, warm=warm is not None
        )  # fmt: skip
        return handle

    def _hand_over(self, task: Task, folder: Path, task_file: str) -> Handle | None:
        """Let a spare do the task; None when there is none that takes it."""
        if self._spares is None or self._ended_mute(task.job, task.attempt - 1):
            return None
        spare = self._spares.take(task.kind)
        if spare is None:
            return None
        try:
            handle = Handle(pid=spare.pid, start_time=spare.start_time, boot_id=self._boot_id)
            # before it knows its task: whatever becomes of this server, the attempt can be found
            _write(folder / "handle.json", json.dumps(asdict(handle)))
            if spare.hand_over(task_file):
                return handle
            log.warning("spare.refused", job=task.job, attempt=task.attempt, kind=task.kind, pid=spare.pid)
            return None
        finally:
            spare.let_go()

    def _ended_mute(self, job_id: str, attempt: int) -> bool:
        """Say whether nothing was heard of an attempt's worker; should spares be at fault, the next one does without."""
        try:
            with (self._of(job_id, attempt) / "spool.jsonl").open() as spool:
                first = spool.readline()
        except FileNotFoundError:
            return False
        return not first.endswith("\n") or json.loads(first).get("kind") == EXITED

    def _start_cold(self, task: Task, folder: Path, task_file: str) -> Handle:
        failpoint("executor.spawn")
        pid = self._spawn(task, folder, task_file)
        handle = Handle(pid=pid, start_time=tree.start_time(pid) or 0, boot_id=self._boot_id)
        failpoint("executor.spawned")
        _write(folder / "handle.json", json.dumps(asdict(handle)))
        return handle

    def find(self, job_id: str, attempt: int) -> Handle | None:
        """Return the place of an attempt that was started, by whichever server; None when it never was."""
        known = _read_json(self._of(job_id, attempt) / "handle.json")
        return None if known is None else Handle(**known)

    def _spawn(self, task: Task, folder: Path, task_file: str) -> int:
        log_file = str(folder / "supervisor.log")
        return os.posix_spawn(
            self._python,
            [self._python, "-m", "tunesmith.supervisor.main", task_file],
            self._allowed(task),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        )

    def _allowed(self, task: Task) -> dict[str, str]:
        return {**passed_on(), **self._environment, tree.JOB_TAG: task.job, tree.ATTEMPT_TAG: str(task.attempt)}

    def stop(self, handle: Handle) -> None:
        """Tell the supervisor to kill its tree, at once; one that is gone already is fine."""
        if handle.boot_id != self._boot_id:
            return
        with contextlib.suppress(ProcessLookupError):
            if not hasattr(os, "pidfd_open"):
                os.kill(handle.pid, signal.SIGTERM)
                return
            process = os.pidfd_open(handle.pid)
            try:
                # looked at after the descriptor is held: from here the number cannot become another process's
                if tree.start_time(handle.pid) == handle.start_time:
                    signal.pidfd_send_signal(process, signal.SIGTERM)
            finally:
                os.close(process)

    def alive(self, handle: Handle) -> bool:
        """Say whether the supervisor still runs; one that ended as our child is collected by this look."""
        if handle.boot_id != self._boot_id:
            return False
        born = tree.start_time(handle.pid)
        if born is not None and born != handle.start_time:
            return False  # the number is another process's now, perhaps of another child of ours
        with contextlib.suppress(ChildProcessError):
            pid, _ = os.waitpid(handle.pid, os.WNOHANG)
            return pid == 0
        return born is not None

    def sweep(self, job_id: str, attempt: int | None = None) -> int:
        """Kill whatever still carries the job's (and attempt's) environment tag; return how many were found."""
        n_found = tree.sweep(job_id, attempt)
        if n_found:
            log.info("attempt.swept", job=job_id, attempt=attempt, n_processes=n_found)
        return n_found

    def strays(self) -> frozenset[tuple[str, int]]:
        """Return the (job, attempt) of every process on this machine that carries a tag."""
        return frozenset((process.job, process.attempt) for process in tree.tagged())

    def outcome(self, job_id: str, attempt: int) -> Outcome | None:
        """Return what `exit.json` says; None when there is none."""
        ended = _read_json(self._of(job_id, attempt) / "exit.json")
        if ended is None:
            return None
        return Outcome(
            exit_code=ended["exit_code"],
            signal=ended["signal"],
            killed=ended["killed"],
            out_of_memory=ended.get("out_of_memory", False),
            stderr_tail=ended["stderr_tail"],
            cause=ended.get("cause"),
        )

    def rest(self, job_id: str, attempt: int) -> list[Report]:
        """Return the reports that an ended attempt had not yet delivered, oldest first."""
        return unsent(str(self._of(job_id, attempt)))

    def _of(self, job_id: str, attempt: int) -> Path:
        return self._folder / job_id / str(attempt)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def _write(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    part = path.with_name(path.name + ".part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123 - for the mode
        file.write(text)
    failpoint(f"executor.rename.{path.stem}")
    part.rename(path)
