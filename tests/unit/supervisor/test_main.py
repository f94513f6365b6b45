import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tunesmith.core.channel import Task
from tunesmith.supervisor.child import NICENESS
from tunesmith.supervisor.main import LINGER_S, tell_crashes

WILD_NAMES = ("worker", "session", "grandchild", "daemon")


def wild(attempt, eventually):
    """Start the wild tree and return its supervisor's pid once every process of it is there."""
    pid = attempt.start("wild_tree", str(attempt.folder))
    eventually(lambda: all((attempt.folder / f"here-{name}").exists() for name in WILD_NAMES), "the wild tree")
    assert len(attempt.pids()) == 5
    return pid


def test_reports_are_forwarded_in_order_and_the_end_is_told_last(attempt, server):
    attempt.start("three_steps")
    assert attempt.wait() == 0
    assert [report["idempotency_key"] for report in server.reports] == ["s1", "s2", "s3", "exit-1"]
    assert server.tokens == {"Bearer secret"}
    ended = attempt.ended()
    assert (ended["exit_code"], ended["signal"], ended["killed"]) == (0, None, False)
    assert "a line for the log" in ended["stderr_tail"]
    assert server.reports[-1]["data"]["exit_code"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_supervisor_leaves_nothing_of_a_tree_that_resists(attempt, server, eventually, number):
    pid = wild(attempt, eventually)
    began = time.monotonic()
    os.kill(pid, number)
    assert attempt.wait() == 0
    assert time.monotonic() - began < LINGER_S, "whoever kills waits for no server"
    assert attempt.pids() == set()
    ended = attempt.ended()
    assert (ended["signal"], ended["killed"]) == (signal.SIGKILL, True)


def test_a_worker_stands_back_behind_its_server_from_its_first_moment(attempt, server):
    own = os.getpriority(os.PRIO_PROCESS, 0)
    attempt.start("tells_priority")
    assert attempt.wait() == 0
    told = json.loads((attempt.folder / "stderr.log").read_text())
    assert told["priority"] == min(19, own + NICENESS)
    assert told["session"] in (None, NICENESS)
    assert told["session"] == NICENESS or not Path("/proc/self/autogroup").exists()


def test_a_tree_that_keeps_forking_is_caught(attempt, server, eventually):
    pid = attempt.start("fork_bomb")
    eventually(lambda: len(attempt.pids()) > 20, "a tree that grows")
    os.kill(pid, signal.SIGTERM)
    attempt.wait()
    assert attempt.pids() == set()


def test_a_killed_supervisor_takes_the_worker_along_and_its_orphans_are_found_by_their_tag(attempt, server, eventually):
    from tunesmith.supervisor import tree

    pid = wild(attempt, eventually)
    os.kill(pid, signal.SIGKILL)
    attempt.wait()
    eventually(lambda: len(attempt.pids()) == 3, "the worker's death by its death signal, three orphans")
    assert not (attempt.folder / "exit.json").exists()
    assert tree.sweep(attempt.job) == 3
    assert attempt.pids() == set()


def test_what_a_worker_leaves_behind_dies_with_it(attempt, server):
    attempt.start("leaves_a_daemon", str(attempt.folder))
    attempt.wait()
    assert attempt.pids() == set()
    assert attempt.ended()["exit_code"] == 3
    assert attempt.ended()["killed"] is False


def test_a_worker_killed_by_a_signal_is_told_as_such(attempt, server, eventually):
    pid = attempt.start("sleeps")
    eventually(lambda: server.kinds() == ["started"], "the worker's start")
    (worker,) = attempt.pids() - {pid}
    os.kill(worker, signal.SIGKILL)
    attempt.wait()
    assert (attempt.ended()["exit_code"], attempt.ended()["signal"]) == (None, signal.SIGKILL)
    assert server.kinds() == ["started", "exited"]
    assert server.reports[-1]["data"]["killed"] is False
    assert attempt.ended()["out_of_memory"] is False


#: A supervisor whose kernel counts its out-of-memory kills in a folder that is named first.
COUNTED = """
import sys
from functools import partial
from tunesmith.supervisor import main, memory
memory.n_oom_kills = partial(memory.n_oom_kills, sys.argv.pop(1))
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("ours", [False, True])
def test_a_worker_killed_while_memory_ran_out_is_told_as_such_unless_we_killed_it(attempt, server, eventually, ours):
    counters = attempt.folder / "proc" / "vmstat"
    counters.parent.mkdir()
    counters.write_text("oom_kill 4\n")
    pid = attempt.start("sleeps", main=("-c", COUNTED, f"{attempt.folder}/"))
    eventually(lambda: server.kinds() == ["started"], "the worker's start")
    counters.write_text("oom_kill 5\n")
    (worker,) = attempt.pids() - {pid}
    os.kill(*((pid, signal.SIGTERM) if ours else (worker, signal.SIGKILL)))
    attempt.wait()
    assert (attempt.ended()["signal"], attempt.ended()["killed"]) == (signal.SIGKILL, ours)
    assert attempt.ended()["out_of_memory"] is not ours


def test_a_fenced_attempt_is_killed_at_once(attempt, server, eventually):
    server.status = 410
    attempt.start("sleeps")
    attempt.wait()
    assert attempt.ended()["killed"] is True
    assert attempt.pids() == set()
    assert server.reports == []


def test_a_fenced_heartbeat_kills_a_worker_that_says_nothing(attempt, server, eventually):
    attempt.start("sleeps")
    eventually(lambda: server.n_beats > 0, "a heartbeat")
    server.status = 410
    attempt.wait()
    assert attempt.ended()["killed"] is True


def test_while_the_server_is_away_work_goes_on_and_nothing_is_lost(attempt, socket_path, eventually, request):
    attempt.start("many_steps", "100")
    eventually(lambda: (attempt.folder / "exit.json").exists(), "the worker's end without a server")
    server = request.getfixturevalue("server")
    attempt.wait()
    assert [report["idempotency_key"] for report in server.reports] == [*(f"s{step}" for step in range(100)), "exit-1"]


def test_a_silent_server_ends_the_attempt_only_where_a_limit_says_so(attempt, eventually):
    attempt.start("sleeps", silence_limit_s=0.5)
    attempt.wait()
    assert attempt.ended()["killed"] is True
    assert attempt.pids() == set()


def test_a_server_in_trouble_is_asked_again(attempt, server, eventually):
    server.status = 503
    attempt.start("three_steps")
    eventually(lambda: (attempt.folder / "exit.json").exists(), "the worker's end")
    assert server.reports == []
    server.status = 200
    attempt.wait()
    assert server.kinds() == ["metrics", "metrics", "metrics", "exited"]


def test_batches_hold_at_most_64_reports(attempt, server):
    attempt.start("many_steps", "500")
    attempt.wait()
    steps = [report["data"]["step"] for report in server.reports if report["kind"] == "metrics"]
    assert steps == list(range(500))
    assert max(len(batch) for batch in server.batches) <= 64
    assert len(server.batches) < 60


def test_what_the_owner_wants_reaches_the_worker(attempt, server):
    server.desired = "pause"
    attempt.start("waits_for_pause")
    attempt.wait()
    assert server.reports[0]["data"]["message"] == "pause"


def test_a_worker_that_does_not_start_says_why(attempt, server):
    attempt.start("", command=["/nowhere/python"])
    attempt.wait()
    assert attempt.ended()["exit_code"] == 127
    assert "/nowhere/python does not start: [Errno 2] No such file or directory" in attempt.ended()["stderr_tail"]


#: A supervisor as it runs where there is no `/proc`, no sub-reaper and no death signal.
ELSEWHERE = """
import sys
from tunesmith.supervisor import tree
tree.LINUX = False
from tunesmith.supervisor import main
sys.exit(main.main(sys.argv[1:]))
"""


def test_where_linux_is_not_the_workers_group_is_killed(attempt, server, eventually):
    pid = attempt.start("sleeps", main=("-c", ELSEWHERE))
    eventually(lambda: server.kinds() == ["started"], "the worker's start")
    os.kill(pid, signal.SIGTERM)
    attempt.wait()
    assert attempt.pids() == set()
    assert attempt.ended()["killed"] is True


def test_where_linux_is_not_reports_and_the_end_are_told_too(attempt, server):
    attempt.start("three_steps", main=("-c", ELSEWHERE))
    attempt.wait()
    assert server.kinds() == ["metrics", "metrics", "metrics", "exited"]
    assert attempt.ended()["exit_code"] == 0


def test_a_supervisor_is_small(attempt, server, eventually, monkeypatch):
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    pid = attempt.start("sleeps")
    eventually(lambda: server.n_beats > 0, "a heartbeat")
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    resident_kb = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    assert resident_kb < 20 * 1024


def test_a_supervisor_that_fails_names_its_attempt(capfd, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    task = Task(kind="train", job="ftjob-a", attempt=3, token="t", socket="s", folder="f", spec={}, silence_limit_s=None)
    tell_crashes(task)
    sys.excepthook(ValueError, ValueError("broken"), None)
    line = json.loads(capfd.readouterr().err)
    assert (line["event"], line["job"], line["attempt"]) == ("supervisor.crashed", "ftjob-a", 3)
    assert "ValueError: broken" in line["exception"]
