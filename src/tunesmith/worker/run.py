"""One attempt's work: `python -m tunesmith.worker.run TASK_JSON`, started by its supervisor, which reads its reports.

With `--spare KIND THREADS` in place of the file it makes itself ready for a task of that kind, and waits for one.
"""

import gc
import os
import sys
import traceback
from pathlib import Path
from typing import Any, Final

import structlog

from tunesmith.core import logs
from tunesmith.core.channel import Task
from tunesmith.core.clock import SystemClock
from tunesmith.core.failpoint import failpoint
from tunesmith.worker.compose import open_blobs
from tunesmith.worker.further import Silent, is_further
from tunesmith.worker.reporter import PipeControl, WorkerReporter
from tunesmith.worker.spare import SPARE, wait_for_task

log = structlog.get_logger()

_LONGEST_MESSAGE: Final = 1000
_OUT_OF_MEMORY: Final = "The worker ran out of memory. Use a smaller batch_size, shorter examples or a smaller base model."


def perform(task: Task, reporter: WorkerReporter | Silent, control: PipeControl | Silent) -> int:
    """Do the task and report its end; return the process's exit code."""
    logs.configure(job=task.job, attempt=task.attempt)
    failpoint(f"worker.{task.kind}")
    try:
        _dispatch(task, reporter, control)
    except Exception as error:
        log.exception("worker.crashed")
        if not reporter.ended:
            reporter.failed(*_explained(error))
        return 1
    if not reporter.ended:
        # a task that ends without a word was not done; the job's next attempt goes on
        print("the task ended without reporting its end", file=sys.stderr)  # noqa: T201 - the worker's log is its stderr
        return 1
    return 0


def _dispatch(task: Task, reporter: WorkerReporter | Silent, control: PipeControl | Silent) -> None:
    """Hand the task to its kind's module; only a training loads torch."""
    from tunesmith.domain.tasks import TrainSpec, ValidateSpec  # noqa: PLC0415 - after the threads are set

    blobs = open_blobs(str(task.spec["blobs"]))
    match task.kind:
        case "validate":
            from tunesmith.worker import validate  # noqa: PLC0415 - without torch

            validate.run(task, ValidateSpec(**task.spec), reporter, control, blobs)
        case "train":
            gc.disable()  # what is imported stays: looking through it for garbage takes a sixth of these seconds
            from tunesmith.worker import train  # noqa: PLC0415 - seconds of torch

            gc.freeze()
            gc.enable()
            train.run(task, TrainSpec(**task.spec), reporter, control, blobs)
        case other:
            raise ValueError(f"no worker for tasks of kind {other!r}")


def _explained(error: Exception) -> tuple[str, str | None, str]:
    """Return code, param and message of the job's error for a crash."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out_of_memory", None, _OUT_OF_MEMORY
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "tunesmith" in frame.filename]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    text = f"The worker crashed: {type(error).__name__}: {error}"
    return "server_error", None, text[:_LONGEST_MESSAGE] + where


def _set_threads(spec: dict[str, Any]) -> None:
    """Bind every thread pool of the numeric libraries before one of them is loaded."""
    n_threads = str(spec.get("threads", 1))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = n_threads
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main(arguments: list[str]) -> int:
    """Do the task whose file is named, or the one that a spare is told."""
    if is_further():
        task, silent = Task.from_json(Path(arguments[0]).read_text()), Silent()
        _set_threads(task.spec)
        return perform(task, silent, silent)
    reports, control = int(os.environ["TUNESMITH_REPORT_FD"]), int(os.environ["TUNESMITH_CONTROL_FD"])
    if arguments[0] == SPARE:
        _set_threads({"threads": arguments[2]})
        task = wait_for_task(arguments[1], reports=reports, control=control)
    else:
        task = Task.from_json(Path(arguments[0]).read_text())
    if task is None:
        return 0
    _set_threads(task.spec)
    return perform(task, WorkerReporter(reports, task, SystemClock()), PipeControl(control))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
