"""A supervisor that waits for its task, with a worker that has imported what a task of its kind needs.

`python -m tunesmith.supervisor.spare KIND THREADS`. Standard input is the server's: its end before a task, the server's own
end among others, is the spare's end. A line on it is the path of a task's file, and makes this an attempt like any other;
nothing that happens to standard input matters from then on. Standard output answers: `ready PID` (of the worker) when it
has imported everything, `taken` when the process carries the attempt's tag and its worker is about to be told.
"""

import os
import select
import sys

from tunesmith.core.channel import READY, TAKEN, Task
from tunesmith.core.clock import SystemClock
from tunesmith.core.failpoint import failpoint
from tunesmith.supervisor import child, tag, tree
from tunesmith.supervisor.main import Supervisor, tell_crashes


def main(arguments: list[str]) -> int:
    """Wait with a worker of the kind that is named; more arguments are its command (the product's by default)."""
    kind, threads, *command = arguments
    tag.prove_tag()
    tree.adopt_orphans()
    failpoint("spare.spawn")
    command = command or [sys.executable, "-m", "tunesmith.worker.run", "--spare", kind, threads]
    worker = child.start(command, log=2)
    task_file = _wait(worker)
    if task_file is None:
        tree.kill_descendants(None if tree.LINUX else worker.pid)
        return 0
    with open(task_file) as file:  # noqa: PTH123 - as in tree.py
        task = Task.from_json(file.read())
    tell_crashes(task)
    failpoint("spare.asked")
    supervisor = Supervisor(task, SystemClock())
    supervisor.listen_to_signals()
    try:
        tag.take_tag(task.job, task.attempt)
        os.write(1, f"{TAKEN}\n".encode())
    except (tag.NoTag, BrokenPipeError):
        # nobody is to work for this job without its tag, or unknown to its server
        tree.kill_descendants(None if tree.LINUX else worker.pid)
        raise
    _write_to(f"{task.folder}/supervisor.log")
    failpoint("spare.taken")
    return supervisor.watch(worker, first=task_file)


def _wait(worker: child.Child) -> str | None:
    """Return the path of the task's file, as soon as there is one; None when there will be none, or no worker."""
    said = b""
    watched = [0, worker.reports]
    while True:
        asked, *_ = select.select(watched, [], [])
        if worker.reports in asked:
            text = os.read(worker.reports, 64)
            if not text:
                return None
            if text.strip() == READY.encode():
                os.write(1, f"{READY} {worker.pid}\n".encode())
        if 0 in asked:
            text = os.read(0, 4096)
            said += text
            if said.endswith(b"\n"):
                return os.fsdecode(said[:-1])
            if not text:
                return None


def _write_to(path: str) -> None:
    """Let go of the server's pipes and of its log: from here on everything is the attempt's own."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(nothing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
