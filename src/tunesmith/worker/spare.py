"""A worker before its task: imports what a task of its kind needs, says so, and waits to be told which task it is."""

import gc
import importlib
import os
from pathlib import Path
from typing import Final

from tunesmith import bases
from tunesmith.core.channel import READY, Task
from tunesmith.core.failpoint import failpoint
from tunesmith.supervisor.tag import prove_tag, take_tag
from tunesmith.worker import compose

#: What a supervisor starts a spare's worker with in place of a task's file; the kind and a number of threads follow.
SPARE: Final = "--spare"


def wait_for_task(kind: str, *, reports: int, control: int) -> Task | None:
    """Return the task once there is one, with its tag and its log taken; None when there will be none.

    Raises:
        NoTag: this process cannot carry the attempt's tag.
    """
    prove_tag()
    _prepare(kind)
    os.write(reports, f"{READY}\n".encode())
    task_file = _line(control)
    if task_file is None:
        return None
    failpoint("spare.told")
    task = Task.from_json(Path(task_file).read_text())
    log = os.open(Path(task.folder) / "stderr.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    take_tag(task.job, task.attempt)
    return task


def _prepare(kind: str) -> None:
    """Import what `run` imports for a task, and load the embedded base once: some things are set up only then."""
    embedded = Path(bases.__file__).parent / "tunesmith-nano"
    gc.disable()
    compose.preload()
    importlib.import_module(f"tunesmith.worker.{kind}")
    if kind == "train":
        import torch  # noqa: PLC0415 - seconds, and after the threads are set

        from tunesmith.lm import load  # noqa: PLC0415 - as above

        # never on a GPU: a spare that waits is to hold none of its memory
        load.prove(load.load(embedded, device=torch.device("cpu"), dtype=torch.float32))
    renderer = importlib.import_module("tunesmith.data.render")
    renderer.Renderer.load(embedded)
    gc.collect()
    gc.freeze()
    gc.enable()


def _line(descriptor: int) -> str | None:
    """Return the first line, and leave what follows in the pipe; None when the pipe ends before."""
    line = b""
    while byte := os.read(descriptor, 1):
        if byte == b"\n":
            return os.fsdecode(line)
        line += byte
    return None
