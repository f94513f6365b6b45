import asyncio
import signal
import threading
import time

import pytest
from pydantic import TypeAdapter

from tunesmith.core.clock import SystemClock
from tunesmith.graders.base import GraderNotAvailable, GradingFailed, Sample
from tunesmith.graders.batch import Batch
from tunesmith.graders.grader import Grader
from tunesmith.supervisor import tree
from tunesmith.worker.grading import open_grading

RIGHT = {"type": "python", "source": "def grade(sample, item):\n    return float(sample['output_text'] == item['answer'])"}
SLEEPS = "import time\ndef grade(sample, item):\n    time.sleep(600)\n    return 1"


@pytest.fixture
def grading(tmp_path):
    with open_grading(SystemClock(), tmp_path / "grader-env", sandbox_reduced=True) as opened:
        yield opened


@pytest.fixture
def sandbox(grading):
    found = grading.run(grading.tools.sandbox.found())
    if found.level == "none":
        pytest.skip(found.way_out)
    return grading.tools.sandbox


def test_a_trainer_grades_many_samples_at_once_while_it_does_something_else(grading, sandbox):
    grader = TypeAdapter(Grader).validate_python(RIGHT)
    grading.run(grader.check(grading.tools))
    batch = Batch(grader, grading.tools, n_at_once=8)
    later = grading.begin(batch.grade([Sample.of_text(str(n % 4), {"answer": "3"}) for n in range(16)]))
    assert threading.current_thread() is threading.main_thread()
    assert [grade.reward for grade in later.result(60)] == [0.0, 0.0, 0.0, 1.0] * 4
    assert batch.latencies()["python"].n == 4


def test_what_goes_wrong_is_raised_where_it_is_waited_for(grading, sandbox):
    with pytest.raises(GradingFailed, match="ZeroDivisionError"):
        grading.run(sandbox.grade("def grade(sample, item):\n    return 1 / 0", Sample.of_text("")))
    with pytest.raises(GraderNotAvailable):
        _ = grading.tools.judge


def test_close_ends_what_still_grades_and_every_process(grading, sandbox):
    later = grading.begin(sandbox.grade(SLEEPS, Sample.of_text("")))
    end = time.monotonic() + 30
    while len(here := [pid for root in sandbox.pids for pid in (root, *tree.descendants(root))]) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    began = time.monotonic()
    for _ in range(2):
        grading.close()
    assert time.monotonic() - began < 5
    assert later.cancelled()
    end = time.monotonic() + 5
    while any(tree.start_time(pid) is not None for pid in here) and time.monotonic() < end:
        time.sleep(0.01)
    assert [pid for pid in here if tree.start_time(pid) is not None] == []


class Interrupted(BaseException):
    """What a signal's handler raises."""


def test_who_is_interrupted_while_waiting_leaves_no_call(grading):
    ended = threading.Event()

    async def endless():
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()

    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Interrupted):
            grading.run(endless())
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ended.wait(10)
