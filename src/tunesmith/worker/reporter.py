"""The worker's two pipes to its supervisor: reports out, the owner's wishes in."""

import json
import math
import os
import threading
from typing import Any

from tunesmith.core import channel
from tunesmith.core.channel import Report, Task
from tunesmith.core.clock import Clock


class WorkerReporter:
    """Writes reports as JSON lines; every call returns at once. Thread-safe."""

    def __init__(self, descriptor: int, task: Task, clock: Clock) -> None:
        self._descriptor = descriptor
        self._task = task
        self._clock = clock
        self._lock = threading.Lock()
        self._n_messages = 0
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the task's end was reported; nothing may follow it."""
        return self._ended

    def started(self, *, total_steps: int, step: int) -> None:
        """Say that training goes on from `step`."""
        key = f"started-{self._task.attempt}"
        self._report(channel.STARTED, key, {"step": step, "total_steps": total_steps})

    def metrics(self, step: int, total_steps: int, values: dict[str, Any]) -> None:
        """Report one optimizer step; a number that is not finite is reported as null."""
        self._report(channel.METRICS, f"s{step}", {"step": step, "total_steps": total_steps, **_finite(values)})

    def message(self, text: str, *, level: str = "info", key: str | None = None) -> None:
        """Put a line into the job's events; with `key` the job shows it once, however many attempts say it."""
        self._n_messages += 1
        own_key = f"message-{self._task.attempt}-{self._n_messages}"
        self._report(channel.MESSAGE, key if key is not None else own_key, {"level": level, "message": text})

    def checkpoint(self, step: int, key: str, sha256: str, metrics: dict[str, Any]) -> None:
        """Say that a checkpoint is complete in the blob store."""
        data = {"step": step, "key": key, "sha256": sha256, "metrics": _finite(metrics)}
        self._report(channel.CHECKPOINT, f"ckpt-{step}", data)

    def validated(self, data: dict[str, Any]) -> None:
        """Say that the files are good; `data` holds counts, resolved hyperparameters and warnings."""
        self._end(channel.VALIDATED, "validated", data)

    def finished(self, data: dict[str, Any]) -> None:
        """Say that the training is done; `data` holds the final checkpoint and the trained tokens."""
        self._end(channel.FINISHED, "terminal", {**data, "metrics": _finite(data["metrics"])})

    def paused(self, step: int, key: str, sha256: str, metrics: dict[str, Any]) -> None:
        """Say that the training has stopped at a checkpoint, complete in the blob store, to go on from there."""
        data = {"step": step, "key": key, "sha256": sha256, "metrics": _finite(metrics)}
        self._end(channel.PAUSED, f"paused-{self._task.attempt}", data)

    def failed(self, code: str, param: str | None, message: str) -> None:
        """Say that the task failed in a way that a user can read."""
        self._end(channel.FAILED, "terminal", {"code": code, "param": param, "message": message})

    def _end(self, kind: str, key: str, data: dict[str, Any]) -> None:
        self._report(kind, key, data)
        self._ended = True

    def _report(self, kind: str, key: str, data: dict[str, Any]) -> None:
        report = Report(kind, self._task.job, self._task.attempt, key, self._clock.now(), data)
        line = memoryview((report.to_json() + "\n").encode())
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()}


class PipeControl:
    """Reads what the job's owner wants, as the supervisor passes it on; asking never waits."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)
        self._torn = b""
        self._desired = "run"

    def pause_asked(self) -> bool:
        """Say whether the job is to pause at the next step boundary."""
        try:
            while text := os.read(self._descriptor, 4096):
                *lines, self._torn = (self._torn + text).split(b"\n")
                for line in lines:
                    self._desired = str(json.loads(line)["desired"])
        except BlockingIOError:
            return self._desired == "pause"
        return self._desired == "pause"
