"""The sandbox of python graders inside an attempt: its processes are the attempt's, and end with it in every way it ends."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tunesmith.supervisor import tree

pytestmark = [
    pytest.mark.skipif(not tree.LINUX, reason="the sandbox is Linux's"),
    pytest.mark.parametrize("level", ["full", "reduced"]),
]

PROGRAM = str(Path(__file__).parent / "programs" / "grades.py")
#: The promise is 250 ms, of a machine on which no other tests run.
SOON_S = 2.0


@pytest.fixture
def grading(attempt, server, eventually, level):
    """Start an attempt in the middle of calls of python graders; return its worker's pid and every process below that."""
    attempt.start("", command=[sys.executable, PROGRAM, str(attempt.folder), level])
    found = [attempt.folder / name for name in ("grading", "none", "exit.json")]
    eventually(lambda: any(path.exists() for path in found), "calls of python graders")
    if found[1].exists():
        pytest.skip(f"this host does not give the level {level}")
    worker = int(found[0].read_text())
    below = tree.descendants(worker)
    assert len(below) >= 3, "a zygote and two calls"
    return worker, below


def living(pids):
    return [pid for pid in pids if tree.start_time(pid) is not None]


def test_every_process_of_it_is_below_the_supervisor_and_carries_the_tag(attempt, grading, level):
    worker, below = grading
    assert {worker, *below} <= set(tree.descendants(attempt.process.pid))
    if os.geteuid() == 0:  # who alone may look into those that let nobody
        assert {worker, *below} <= attempt.pids()


@pytest.mark.parametrize("how", ["the supervisor is asked to end", "the supervisor is killed", "the trainer is killed"])
def test_nothing_of_it_outlives_its_attempt(attempt, grading, eventually, level, how):
    worker, below = grading
    match how:
        case "the supervisor is asked to end":
            os.kill(attempt.process.pid, signal.SIGTERM)
        case "the supervisor is killed":
            os.kill(attempt.process.pid, signal.SIGKILL)
        case _:
            os.kill(worker, signal.SIGKILL)
    eventually(lambda: not living([worker, *below]), "the end of the sandbox", within_s=SOON_S)
    attempt.wait()
    assert attempt.pids() == set()


def test_a_sweep_ends_one_whose_trainer_and_supervisor_stand_still(attempt, grading, eventually, level):
    worker, below = grading
    for pid in (worker, attempt.process.pid):
        os.kill(pid, signal.SIGSTOP)
    assert tree.sweep(attempt.job, 1) > 1
    eventually(lambda: not living([worker, *below]), "the end of the sandbox", within_s=SOON_S)
