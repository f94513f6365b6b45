import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.core.channel import Task
from tunesmith.supervisor import tag, tree

PROGRAM = Path(__file__).parent / "programs" / "spare_steps.py"
PATIENCE_S = 60.0


class Spare:
    """A spare's supervisor over a worker of the test's own, and the server's ends of its pipes."""

    def __init__(self, folder, *words):
        self.name = tag.spare_name(str(folder))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tunesmith.supervisor.spare", "train", "1", sys.executable, str(PROGRAM), *words],
            env={**os.environ, **tag.spare_tag(str(folder))},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True,
        )  # fmt: skip

    def ready(self):
        """Wait until it is ready and return its worker's number."""
        word, pid = self.process.stdout.readline().split()
        assert word == "ready"
        return int(pid)

    def told(self, path):
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def let_go(self):
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def spare(tmp_path):
    made = []

    def make(*words):
        made.append(Spare(tmp_path, *words))
        return made[-1]

    yield make
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait(PATIENCE_S)
        tree.sweep(each.name)


@pytest.fixture
def task_file(attempt):
    task = Task("train", attempt.job, 3, "secret", attempt.socket_path, str(attempt.folder), {})
    path = attempt.folder / "task.json"
    path.write_text(task.to_json())
    return path


def test_a_spare_waits_under_its_own_tag_and_becomes_the_attempt_that_it_is_told(
    spare, attempt, task_file, server, eventually
):
    waiting = spare("stay")
    worker = waiting.ready()
    assert {found.pid for found in tree.tagged(waiting.name)} == {waiting.process.pid, worker}
    assert waiting.told(task_file) == "taken\n"
    waiting.let_go()
    eventually(lambda: server.reports, "the worker's first report, after the server's ends were closed")
    assert server.reports[0]["data"]["message"] == f"{task_file}\n"
    assert {found.pid for found in tree.tagged(attempt.job, 3)} == {waiting.process.pid, worker}
    assert tree.tagged(waiting.name) == []
    for name, number in (("0", os.devnull), ("1", "supervisor.log"), ("2", "supervisor.log")):
        assert Path(f"/proc/{waiting.process.pid}/fd/{name}").readlink().name == Path(number).name
    os.kill(waiting.process.pid, signal.SIGTERM)
    waiting.process.wait(PATIENCE_S)
    assert attempt.pids() == set()
    assert attempt.ended()["killed"] is True


def test_a_spares_worker_that_ends_is_told_of_as_any_other(spare, attempt, task_file, server):
    waiting = spare()
    waiting.ready()
    assert waiting.told(task_file) == "taken\n"
    assert waiting.process.wait(PATIENCE_S) == 0
    assert server.kinds() == ["message", "exited"]
    assert (attempt.ended()["exit_code"], attempt.ended()["killed"]) == (0, False)
    waiting.let_go()


def test_a_spare_may_be_told_before_it_is_ready(spare, attempt, task_file, server):
    waiting = spare()
    said = {waiting.told(task_file), waiting.process.stdout.readline()}
    assert "taken\n" in said
    assert waiting.process.wait(PATIENCE_S) == 0
    assert "message" in server.kinds()
    waiting.let_go()


def test_a_spare_leaves_when_its_server_is_gone(spare, eventually):
    waiting = spare()
    waiting.ready()
    waiting.let_go()
    assert waiting.process.wait(PATIENCE_S) == 0
    assert tree.tagged(waiting.name) == []


def test_half_a_line_is_no_task(spare, task_file):
    waiting = spare()
    waiting.ready()
    waiting.process.stdin.write(str(task_file))
    waiting.process.stdin.flush()
    waiting.let_go()
    assert waiting.process.wait(PATIENCE_S) == 0
    assert not (task_file.parent / "spool.jsonl").exists()


@pytest.mark.parametrize("killed", ["supervisor", "worker"])
def test_a_spare_of_which_one_process_is_killed_is_no_more(spare, eventually, killed):
    waiting = spare()
    worker = waiting.ready()
    os.kill(worker if killed == "worker" else waiting.process.pid, signal.SIGKILL)
    assert waiting.process.stdout.readline() == "", "the server hears of it"
    waiting.process.wait(PATIENCE_S)
    eventually(lambda: tree.tagged(waiting.name) == [], "both are gone")
    waiting.let_go()


def test_a_spare_whose_tag_has_no_room_does_not_take_the_task(spare, attempt, tmp_path, eventually):
    waiting = spare()
    waiting.ready()
    path = tmp_path / "task.json"
    path.write_text(Task("train", "ftjob-" + "x" * 70, 1, "secret", "none", str(tmp_path), {}).to_json())
    assert waiting.told(path) == ""
    assert waiting.process.wait(PATIENCE_S) != 0
    eventually(lambda: tree.tagged(waiting.name) == [], "its worker is gone, untold")
    waiting.let_go()


def test_a_spare_that_nobody_hears_does_not_take_the_task(spare, attempt, task_file, eventually):
    waiting = spare("stay")
    waiting.ready()
    waiting.process.stdout.close()
    waiting.process.stdin.write(f"{task_file}\n")
    waiting.process.stdin.close()
    assert waiting.process.wait(PATIENCE_S) != 0
    eventually(lambda: tree.tagged(waiting.name) == [] and attempt.pids() == set(), "nobody works for the job")


def test_a_spares_supervisor_is_small(spare, monkeypatch):
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    waiting = spare()
    waiting.ready()
    status = Path(f"/proc/{waiting.process.pid}/status").read_text().splitlines()
    assert next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) < 20 * 1024
    waiting.let_go()
