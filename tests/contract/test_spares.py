"""The local executor with spares: what takes a task, what is started cold instead, and what never stays behind."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog.testing
from typer.testing import CliRunner

from tunesmith.cli.main import app
from tunesmith.core.channel import Task
from tunesmith.core.clock import SystemClock
from tunesmith.executors import spare as one
from tunesmith.executors import spares as pool
from tunesmith.executors.local import LocalExecutor
from tunesmith.executors.spares import LocalSpares
from tunesmith.supervisor import tag, tree
from tunesmith.supervisor.child import NICENESS

PATIENCE_S = 60.0
JOB = f"ftjob-spares{os.getpid()}"
#: Whatever takes a task stays at its beginning.
STAYS = "worker.validate=sleep:600"


def eventually(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    pytest.fail(f"not within {PATIENCE_S} s: {what}")


class Place:
    """An executor with its spares, and their folder."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.name = tag.spare_name(str(folder))
        environment = {"TUNESMITH_FAILPOINTS": STAYS, **options.pop("environment", {})}
        self.spares = LocalSpares(
            folder,
            clock=SystemClock(),
            environment=environment,
            **{"wanted": {"validate": 1}, "max_bytes": 10**10, "threads": 1, **options},
        )
        self.executor = LocalExecutor(folder / "attempts", spares=self.spares, environment=environment)

    def begin(self) -> int:
        """Start, and return the number of the first ready spare's supervisor."""
        self.spares.start()
        return self.ready()

    def ready(self) -> int:
        def found() -> list[int]:
            return [spare.pid for spare in self.spares.list() if spare.ready]

        return eventually(found, "a ready spare")[0]

    def task(self, attempt: int = 1) -> Task:
        folder = self.folder / "attempts" / JOB / str(attempt)
        return Task("validate", JOB, attempt, "secret", str(self.folder / "none.sock"), str(folder), {"threads": 3})

    def waiting(self) -> set[int]:
        return {process.pid for process in tree.tagged(self.name)}

    def at_work(self, attempt: int = 1) -> set[int]:
        return {process.pid for process in tree.tagged(JOB, attempt)}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Place]]:
    """Return a maker of places whose spares are replaced at once."""
    monkeypatch.setattr(pool, "REST_S", 0.01)
    made: list[Place] = []

    def make(**options: Any) -> Place:
        made.append(Place(tmp_path / "data", **options))
        (tmp_path / "data").mkdir(exist_ok=True)
        return made[-1]

    yield make
    for each in made:
        each.spares.close()
        tree.sweep(JOB)
        assert each.waiting() == set()


def test_a_spare_takes_the_task_and_another_takes_its_place(place):
    here = place()
    spare = here.begin()
    worker = here.waiting() - {spare}
    handle = here.executor.start(here.task())
    assert (handle.pid, handle.start_time) == (spare, tree.start_time(spare))
    assert json.loads((Path(here.task().folder) / "handle.json").read_text())["pid"] == spare
    assert here.executor.start(here.task()) == handle, "once"
    eventually(lambda: here.at_work() == {spare} | worker, "both carry the attempt's tag")
    assert here.executor.alive(handle)
    assert here.ready() != spare
    here.executor.stop(handle)
    eventually(lambda: not here.executor.alive(handle), "the attempt's end")
    assert here.at_work() == set()
    outcome = here.executor.outcome(JOB, 1)
    assert outcome is not None
    assert outcome.killed


def test_an_attempt_has_the_same_environment_warm_and_cold(place, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    here = place()
    here.begin()
    seen = []
    for attempt in (1, 2):
        if attempt == 2:
            monkeypatch.setattr(here.spares, "take", lambda kind: None)
        handle = here.executor.start(here.task(attempt))
        eventually(lambda attempt=attempt: len(here.at_work(attempt)) == 2, "supervisor and worker")
        log = Path(here.task(attempt).folder) / "stderr.log"
        eventually(lambda log=log: "failpoint worker.validate" in log.read_text(), "the worker's own log")
        (worker,) = here.at_work(attempt) - {handle.pid}
        seen.append((shown(handle.pid), shown(worker), niceness(handle.pid), niceness(worker), descriptors(worker, log)))
    assert seen[0] == seen[1]
    assert "OPENAI_API_KEY" not in seen[0][1]
    assert seen[0][3] == min(19, seen[0][2] + NICENESS)


def shown(pid: int) -> dict[str, str]:
    """Return a process's environment, without the attempt's number and the numbers of its pipes."""
    parts = Path(f"/proc/{pid}/environ").read_text().split("\0")
    variables = dict(part.split("=", 1) for part in parts if "=" in part)
    return {name: value for name, value in variables.items() if not name.endswith(("_FD", "_ATTEMPT"))}


def niceness(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def descriptors(pid: int, log: Path) -> list[str]:
    """Return what a worker's open files are, its own log by that name."""
    links = [path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir()]
    return sorted("log" if link == log else "pipe" if "pipe" in str(link) else str(link) for link in links)


@pytest.mark.parametrize("killed", ["supervisor", "worker"])
def test_a_spare_that_died_is_replaced(place, killed):
    here = place()
    spare = here.begin()
    (worker,) = here.waiting() - {spare}
    os.kill(worker if killed == "worker" else spare, signal.SIGKILL)
    eventually(lambda: here.ready() != spare, "another spare")
    eventually(lambda: {spare, worker}.isdisjoint(here.waiting()), "the dead one's end")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_task_that_the_spare_does_not_take_is_started_cold(place, monkeypatch, number):
    monkeypatch.setattr(one, "HAND_OVER_S", 0.2)
    here = place()
    spare = here.begin()
    take = here.spares.take

    def take_it_down(kind: str) -> Any:
        taken = take(kind)
        os.kill(spare, number)
        return taken

    monkeypatch.setattr(here.spares, "take", take_it_down)
    handle = here.executor.start(here.task())
    assert handle.pid != spare
    assert json.loads((Path(here.task().folder) / "handle.json").read_text())["pid"] == handle.pid
    eventually(lambda: len(here.at_work()) == 2, "supervisor and worker")
    assert spare not in here.at_work()
    assert tree.start_time(spare) is None


@pytest.mark.parametrize("point", ["spare.asked=kill", "spare.asked=raise"])
def test_a_spare_that_dies_on_its_way_into_the_task_is_followed_by_a_cold_start(place, point):
    here = place(environment={"TUNESMITH_FAILPOINTS": f"{STAYS},{point}"})
    spare = here.begin()
    handle = here.executor.start(here.task())
    assert handle.pid != spare
    eventually(lambda: len(here.at_work()) == 2, "supervisor and worker")


@pytest.mark.parametrize("point", ["spare.taken=kill", "spare.told=kill"])
def test_a_spare_that_dies_in_its_task_is_a_lost_attempt(place, point):
    here = place(environment={"TUNESMITH_FAILPOINTS": f"{STAYS},{point}"})
    spare = here.begin()
    handle = here.executor.start(here.task())
    assert handle.pid == spare
    if "told" in point:
        eventually(lambda: here.executor.outcome(JOB, 1), "what its supervisor records")
        assert here.executor.outcome(JOB, 1).signal == signal.SIGKILL
    else:
        eventually(lambda: not here.executor.alive(handle), "its end")
        assert here.executor.outcome(JOB, 1) is None
    eventually(lambda: here.at_work() <= {handle.pid}, "its worker's end")
    here.ready()
    assert here.executor.start(here.task(2)).pid not in {spare, here.ready()}, "the next attempt trusts no spare"
    assert len(here.spares.list()) == 1


def test_a_spare_waits_without_work(place):
    here = place()
    spare = here.begin()
    pids = here.waiting()
    assert spare in pids

    def looks() -> list[int]:
        status = [Path(f"/proc/{pid}/status").read_text().splitlines() for pid in sorted(pids)]
        return [int(line.split()[1]) for lines in status for line in lines if "ctxt_switches" in line]

    eventually(lambda: looks() == (time.sleep(0.3), looks())[1], "nobody looks at anything any more")
    before = [times(pid) for pid in pids]
    time.sleep(1.0)
    assert [times(pid) for pid in pids] == before


def times(pid: int) -> list[str]:
    """Return the processor time that a process has used."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]


def test_memory_is_told_and_bounded(place):
    here = place()
    here.begin()
    (told,) = here.spares.list()
    assert 20 * 10**6 < told.memory_bytes < 200 * 10**6
    here.spares.close()
    tight = place(max_bytes=told.memory_bytes // 4, wanted={"validate": 2})
    tight.spares.start()
    eventually(lambda: set(tight.spares._wanted.values()) == {0}, "every spare was too large")
    assert tight.spares.list() == []
    eventually(lambda: tight.waiting() == set(), "it was let go")
    assert tight.spares.take("validate") is None


def test_a_server_with_very_many_open_files_has_spares_too(place):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 1200:
        pytest.skip("this process may not open so many")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1050)]
    try:
        here = place()
        spare = here.begin()
        assert here.executor.start(here.task()).pid == spare
        here.spares.close()
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_only_what_is_wanted_is_made(place):
    here = place(wanted={"validate": 0, "train": 0})
    here.spares.start()
    assert here.spares.take("validate") is None
    assert here.waiting() == set()
    handle = here.executor.start(here.task())
    eventually(lambda: len(here.at_work()) == 2, "a cold start")
    assert here.executor.alive(handle)


@pytest.mark.parametrize("broken", [{"python": "/nowhere/python"}, {"environment": {"PYTHONHOME": "/nowhere"}}])
def test_where_no_spare_can_be_made_attempts_start_cold(place, broken):
    here = place(**broken)
    with structlog.testing.capture_logs() as log:
        here.spares.start()
        eventually(lambda: here.spares._n_failures >= 2, "two that failed")
        here.spares.close()  # before its log is taken from it
    assert here.spares.list() == [] or not here.spares.list()[0].ready
    assert "spare.lost" in [line["event"] for line in log]


#: A server that makes a spare, says so, and waits to be killed.
SERVER = """
import sys, time
from pathlib import Path
from tunesmith.core.clock import SystemClock
from tunesmith.executors import spares
spares.REST_S = 0.01
pool = spares.LocalSpares(Path(sys.argv[1]), wanted={"validate": 1}, max_bytes=10**10, threads=1, clock=SystemClock())
pool.start()
while not any(spare.ready for spare in pool.list()):
    time.sleep(0.01)
print("made", file=sys.stderr, flush=True)
time.sleep(600)
"""


def other_server(folder: Path) -> tuple[subprocess.Popen[str], set[int]]:
    """Start a server of its own on a folder; return it and its spare's processes."""
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(folder)], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    eventually(lambda: server.stderr.readline() == "made\n", "its spare")
    return server, {process.pid for process in tree.tagged(tag.spare_name(str(folder)))}


def test_a_killed_server_leaves_no_spare_behind(tmp_path):
    server, spare = other_server(tmp_path)
    assert len(spare) == 2
    server.kill()
    server.wait(PATIENCE_S)
    eventually(lambda: tree.tagged(tag.spare_name(str(tmp_path))) == [], "both have left")
    assert server.stderr is not None
    server.stderr.close()


def test_a_server_ends_what_an_earlier_one_left_and_no_other_servers_spares(place, tmp_path):
    here = place()
    server, stopped = other_server(here.folder)
    other, spared = other_server(tmp_path / "other")
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    server.kill()
    server.wait(PATIENCE_S)
    assert here.waiting() == stopped, "who is stopped does not leave"
    here.begin()
    assert stopped.isdisjoint(here.waiting())
    assert {process.pid for process in tree.tagged(tag.spare_name(str(tmp_path / "other")))} == spared
    other.kill()
    for each in (server, other):
        each.wait(PATIENCE_S)
        assert each.stderr is not None
        each.stderr.close()
    eventually(lambda: tree.tagged(tag.spare_name(str(tmp_path / "other"))) == [], "the other's have left")


def test_the_spares_over_http_and_in_the_doctor(open_house, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "REST_S", 0.01)
    with open_house(tmp_path, warm_spares=3) as served, httpx2.Client(base_url=served.root, trust_env=False) as http:
        path = "/tunesmith/v1/spares"
        none = {"object": "list", "data": [], "has_more": False, "memory_bytes": 0, "max_bytes": 2000 * 1024 * 1024}
        assert http.get(path).json() == none
        served.composed.spares.start()
        eventually(lambda: len(http.get(path).json()["data"]) == 2, "one for validation, and one for the only training slot")
        told = http.get(path).json()
        small, large = told["data"]
        assert [small["kind"], small["status"], large["kind"]] == ["validate", "ready", "train"]
        assert told["memory_bytes"] >= small["memory_bytes"] > 10**7
        said = CliRunner().invoke(app, ["doctor", "--port", served.root.rpartition(":")[2]]).output
        line = next(line for line in said.splitlines() if line.split()[:1] == ["spares"])
        assert "validate (ready), train (" in line
        assert line.endswith("of at most 2.1 GB")
        name = tag.spare_name(str(served.composed.folder.path))
        assert len(tree.tagged(name)) >= 3
    assert tree.tagged(name) == [], "also what still imported has left"
