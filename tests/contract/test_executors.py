"""What every executor promises, asked of each with real processes. A worker here is the supervisor's, deaf to signals."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.channel import Task
from tunesmith.domain.ports import Handle
from tunesmith.executors.local import LocalExecutor
from tunesmith.supervisor import tree

PATIENCE_S = 60.0
JOB = f"ftjob-contract{os.getpid()}"


def eventually(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    pytest.fail(f"not within {PATIENCE_S} s: {what}")


@dataclass
class Place:
    """An executor and the folder it works in."""

    executor: LocalExecutor
    folder: Path

    def task(self, attempt: int = 1, *, job: str = JOB, kind: str = "train", spec: dict[str, Any] | None = None) -> Task:
        folder = self.folder / job / str(attempt)
        return Task(kind, job, attempt, "secret", str(self.folder / "none.sock"), str(folder), spec or {})

    def start(self, task: Task) -> Handle:
        handle = self.executor.start(task)
        eventually(lambda: len(tree.tagged(task.job, task.attempt)) >= 4, "supervisor, worker and its children")
        return handle

    def gone(self, handle: Handle) -> None:
        eventually(lambda: not self.executor.alive(handle), "the supervisor's end")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """The local executor; whatever worker it starts becomes a tree that resists, before its own code runs."""
    package = tmp_path / "path"
    package.mkdir()
    (package / "sitecustomize.py").write_text(_RESISTS)
    with tempfile.TemporaryDirectory() as folder:
        executor = LocalExecutor(Path(folder), environment={"PYTHONPATH": f"{package}:{os.environ.get('PYTHONPATH', '')}"})
        yield Place(executor, Path(folder))
        for process in tree.tagged():
            if process.job.startswith(JOB):
                tree.sweep(process.job)


#: Runs in the worker (the process that got a report pipe) before its own code: a deaf tree with a daemon.
_RESISTS = """
import os, signal, time
if "TUNESMITH_REPORT_FD" in os.environ:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    time.sleep(600)
"""


def test_start_returns_at_once_and_the_attempt_lives(place):
    began = time.monotonic()
    handle = place.executor.start(place.task())
    assert time.monotonic() - began < 10, "start waits for nothing that the worker does"
    assert place.executor.alive(handle)
    assert place.executor.outcome(JOB, 1) is None
    eventually(lambda: (JOB, 1) in place.executor.strays(), "a process that carries the tag")


def test_start_is_idempotent(place):
    first = place.start(place.task())
    assert place.executor.start(place.task()) == first
    other_server = LocalExecutor(place.folder)
    assert other_server.start(place.task()) == first
    eventually(lambda: len(tree.tagged(JOB)) == 4, "one tree, all of it")
    time.sleep(0.3)
    assert len(tree.tagged(JOB)) == 4


def test_stop_leaves_nothing_of_a_tree_that_resists(place):
    handle = place.start(place.task())
    began = time.monotonic()
    place.executor.stop(handle)
    assert time.monotonic() - began < 5, "stop does not wait"
    place.gone(handle)
    assert tree.tagged(JOB) == []
    assert (JOB, 1) not in place.executor.strays()
    outcome = place.executor.outcome(JOB, 1)
    assert outcome is not None
    assert outcome.killed
    assert [report.kind for report in place.executor.rest(JOB, 1)] == ["exited"]


def test_stop_may_be_repeated_and_come_too_late(place):
    handle = place.start(place.task())
    place.executor.stop(handle)
    place.executor.stop(handle)
    place.gone(handle)
    place.executor.stop(handle)
    assert not place.executor.alive(handle)


def test_a_handle_of_another_process_or_another_boot_is_nobodys(place):
    bystander = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    try:
        born = tree.start_time(bystander.pid)
        assert born is not None
        real = Handle(bystander.pid, born, tree.boot_id())
        reused = replace(real, start_time=born - 1)
        rebooted = replace(real, boot_id="another")
        for handle in (reused, rebooted):
            place.executor.stop(handle)
            assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert not place.executor.alive(rebooted)


def test_a_dead_pid_is_not_alive_for_a_server_that_is_not_its_parent(place):
    handle = place.start(place.task())
    born_elsewhere = replace(handle, start_time=handle.start_time + 1)
    assert not place.executor.alive(born_elsewhere)
    assert place.executor.alive(handle)
    os.kill(handle.pid, signal.SIGKILL)
    place.gone(handle)
    assert not place.executor.alive(handle)
    assert not place.executor.alive(born_elsewhere)


def test_sweep_finds_what_a_killed_supervisor_left(place):
    handle = place.start(place.task())
    os.kill(handle.pid, signal.SIGKILL)
    place.gone(handle)
    eventually(lambda: len(tree.tagged(JOB)) == 2, "the worker's death")
    assert (JOB, 1) in place.executor.strays()
    assert place.executor.sweep(JOB, 1) == 2
    assert tree.tagged(JOB) == []
    assert place.executor.sweep(JOB) == 0
    assert place.executor.outcome(JOB, 1) is None


def test_sweep_spares_other_jobs_and_attempts(place):
    other = f"{JOB}other"
    first, second, third = (
        place.start(place.task(1)), place.start(place.task(2)), place.start(place.task(1, job=other)),
    )  # fmt: skip
    assert place.executor.sweep(JOB, 1) == 4
    place.gone(first)
    assert place.executor.alive(second)
    assert place.executor.sweep(JOB) == 4
    place.gone(second)
    assert place.executor.alive(third)
    assert place.executor.strays() >= {(other, 1)}


def test_another_server_can_stop_what_it_did_not_start(place):
    handle = place.start(place.task())
    script = (
        "import sys, json; from pathlib import Path; from tunesmith.executors.local import LocalExecutor;"
        "from tunesmith.domain.ports import Handle; handle = Handle(**json.loads(sys.argv[2]));"
        "executor = LocalExecutor(Path(sys.argv[1])); assert executor.alive(handle); executor.stop(handle)"
    )
    known = json.dumps({"pid": handle.pid, "start_time": handle.start_time, "boot_id": handle.boot_id})
    subprocess.run([sys.executable, "-c", script, str(place.folder), known], check=True)
    place.gone(handle)
    assert tree.tagged(JOB) == []


def test_the_task_is_private_and_the_environment_is_allow_listed(place, monkeypatch):
    monkeypatch.setenv("TUNESMITH_ADMIN_KEY", "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    handle = place.start(place.task())
    folder = Path(place.task().folder)
    assert (folder / "task.json").stat().st_mode & 0o777 == 0o600
    assert Task.from_json((folder / "task.json").read_text()) == place.task()
    environments = []
    for process in tree.tagged(JOB):
        with contextlib.suppress(OSError):  # it may have done its work
            environments.append(Path(f"/proc/{process.pid}/environ").read_text())
    assert environments
    for environment in environments:
        variables = dict(part.split("=", 1) for part in environment.split("\0") if "=" in part)
        assert {"TUNESMITH_ADMIN_KEY", "OPENAI_API_KEY"}.isdisjoint(variables)
        assert (variables["LC_ALL"], variables["CUDA_VISIBLE_DEVICES"]) == ("C.UTF-8", "")
        assert (variables["TUNESMITH_JOB"], variables["TUNESMITH_ATTEMPT"]) == (JOB, "1")
    assert os.getsid(handle.pid) == handle.pid


def test_an_attempt_of_which_nothing_is_known(place):
    assert place.executor.outcome(JOB, 7) is None
    assert place.executor.rest(JOB, 7) == []
    assert place.executor.sweep(JOB, 7) == 0


def test_another_server_finds_an_attempt_and_after_a_reboot_nothing_of_it(place):
    handle = place.start(place.task())
    other = LocalExecutor(place.folder)
    assert other.find(JOB, 1) == handle
    assert other.alive(handle)
    assert other.find(JOB, 2) is None
    rebooted = LocalExecutor(place.folder, boot_id="another")
    found = rebooted.find(JOB, 1)
    assert found == handle
    assert not rebooted.alive(found)
    rebooted.stop(found)  # its number may be anybody's now
    assert other.alive(handle)
    other.stop(handle)
    place.gone(handle)
