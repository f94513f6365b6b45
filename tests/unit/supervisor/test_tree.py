import os
import subprocess
import sys
import time

import pytest

from tunesmith.supervisor import tree

SLEEP = [sys.executable, "-S", "-c", "import time; print(flush=True); time.sleep(60)"]


@pytest.fixture
def child():
    made = []

    def make(**variables):
        process = subprocess.Popen(SLEEP, env={**os.environ, **variables}, stdout=subprocess.PIPE)
        made.append(process)
        assert process.stdout.readline()
        return process

    yield make
    for process in made:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_process_is_known_by_its_start(child):
    process = child()
    born = tree.start_time(process.pid)
    assert born is not None
    assert tree.start_time(process.pid) == born
    assert born >= (tree.start_time(os.getpid()) or 0)
    process.kill()
    end = time.monotonic() + 20
    while tree.start_time(process.pid) is not None:
        assert time.monotonic() < end
    assert process.wait() == -9, "a zombie counts as gone"


def test_a_pid_that_nobody_has():
    assert tree.start_time(2**22 - 1) is None
    assert len(tree.boot_id()) == 36


def test_descendants_are_found_children_first(child):
    process = child()
    assert process.pid in tree.descendants(os.getpid())
    assert tree.descendants(process.pid) == []


def test_tags_are_read_exactly(child):
    job = f"ftjob-tag{os.getpid()}"
    first = child(TUNESMITH_JOB=job, TUNESMITH_ATTEMPT="1")
    second = child(TUNESMITH_JOB=job, TUNESMITH_ATTEMPT="12")
    longer = child(TUNESMITH_JOB=f"{job}0", TUNESMITH_ATTEMPT="1")
    child(TUNESMITH_JOB=job)
    child(X_TUNESMITH_JOB=job, TUNESMITH_ATTEMPT="1")
    child(TUNESMITH_JOB=job, TUNESMITH_ATTEMPT="one")
    assert {process.pid for process in tree.tagged(job)} == {first.pid, second.pid}
    assert [process.pid for process in tree.tagged(job, 1)] == [first.pid]
    assert [process.pid for process in tree.tagged(f"{job}0")] == [longer.pid]
    assert {(job, 1), (job, 12), (f"{job}0", 1)} <= {(process.job, process.attempt) for process in tree.tagged()}
    assert tree.sweep(job, 12) == 1
    assert tree.sweep(job) == 1
    assert second.wait() == first.wait() == -9
    assert longer.poll() is None


def test_a_process_does_not_sweep_itself():
    program = (
        "from tunesmith.supervisor import tree; import os;"
        "assert tree.sweep(os.environ['TUNESMITH_JOB']) == 0; print('alive')"
    )
    variables = {**os.environ, "TUNESMITH_JOB": f"ftjob-self{os.getpid()}", "TUNESMITH_ATTEMPT": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout == "alive\n"


def test_killing_all_descendants_waits_for_the_last_of_them():
    program = (
        "import os, subprocess, sys; from tunesmith.supervisor import tree; tree.adopt_orphans();"
        "inner = 'import os, time; os.fork(); os.setsid() if os.getpid() != os.getpgid(0) else 0; time.sleep(60)';"
        "[subprocess.Popen([sys.executable, '-S', '-c', inner]) for _ in range(3)];"
        "import time; time.sleep(0.5);"
        "assert tree.kill_descendants() >= 3; assert tree.descendants(os.getpid()) == []; print('done')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "done\n"


def test_a_late_child_of_a_dead_parent_exits_at_once():
    child_pid = os.fork()
    if child_pid == 0:
        tree.die_with_parent(os.getppid() + 1)
        os._exit(0)
    _, status = os.waitpid(child_pid, 0)
    assert os.WEXITSTATUS(status) == 127
