import json
import math
import os
import threading

import pytest

from tunesmith.core.channel import Report, Task
from tunesmith.worker.reporter import PipeControl, WorkerReporter


class StandingClock:
    def now(self):
        return 12.5

    def monotonic(self):
        return 0.0


TASK = Task("train", "ftjob-x", 3, "secret", "socket", "folder", {})


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def said(reading):
    return [Report.from_mapping(json.loads(line)) for line in os.read(reading, 1 << 16).splitlines()]


def test_every_kind_has_its_key_and_its_data(pipe):
    reading, writing = pipe
    reporter = WorkerReporter(writing, TASK, StandingClock())
    reporter.started(total_steps=9, step=4)
    reporter.metrics(5, 9, {"train_loss": 1.5})
    reporter.message("once", level="warn", key="known")
    reporter.message("first")
    reporter.message("second")
    reporter.checkpoint(5, "jobs/x", "0a", {"step": 5})
    assert not reporter.ended
    reporter.finished({"step": 9, "metrics": {"train_loss": 0.5}})
    assert reporter.ended
    reports = said(reading)
    assert [(report.kind, report.idempotency_key) for report in reports] == [
        ("started", "started-3"), ("metrics", "s5"), ("message", "known"), ("message", "message-3-2"),
        ("message", "message-3-3"), ("checkpoint", "ckpt-5"), ("finished", "terminal"),
    ]  # fmt: skip
    assert all((report.job, report.attempt, report.created_at) == ("ftjob-x", 3, 12.5) for report in reports)
    assert reports[0].data == {"step": 4, "total_steps": 9}
    assert reports[1].data == {"step": 5, "total_steps": 9, "train_loss": 1.5}
    assert reports[2].data == {"level": "warn", "message": "once"}
    assert reports[5].data == {"step": 5, "key": "jobs/x", "sha256": "0a", "metrics": {"step": 5}}


def test_the_ends_of_other_tasks(pipe):
    reading, writing = pipe
    WorkerReporter(writing, TASK, StandingClock()).validated({"n_examples": 10})
    WorkerReporter(writing, TASK, StandingClock()).failed("code", "param", "why")
    stopped = WorkerReporter(writing, TASK, StandingClock())
    stopped.paused(5, "jobs/x", "0a", {"train_loss": math.nan})
    assert stopped.ended
    validated, failed, paused = said(reading)
    assert (validated.idempotency_key, validated.data) == ("validated", {"n_examples": 10})
    assert (failed.idempotency_key, failed.data) == ("terminal", {"code": "code", "param": "param", "message": "why"})
    assert (paused.kind, paused.idempotency_key) == ("paused", "paused-3")
    assert paused.data == {"step": 5, "key": "jobs/x", "sha256": "0a", "metrics": {"train_loss": None}}


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_has_not_is_null(pipe, loss):
    reading, writing = pipe
    reporter = WorkerReporter(writing, TASK, StandingClock())
    reporter.metrics(1, 2, {"train_loss": loss})
    reporter.checkpoint(1, "k", "s", {"train_loss": loss})
    assert [report.data.get("train_loss", report.data.get("metrics")) for report in said(reading)] == [
        None,
        {"train_loss": None},
    ]


def test_lines_of_several_threads_stay_whole(pipe):
    reading, writing = pipe
    reporter = WorkerReporter(writing, TASK, StandingClock())
    text = "x" * 3000
    threads = [threading.Thread(target=lambda: [reporter.message(text) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    received = b""
    while received.count(b"\n") < 40:
        received += os.read(reading, 1 << 16)
    for thread in threads:
        thread.join()
    assert all(json.loads(line)["data"]["message"] == text for line in received.splitlines())


def test_asking_never_waits_and_hears_the_last_word():
    reading, writing = os.pipe()
    control = PipeControl(reading)
    assert not control.pause_asked()
    os.write(writing, b'{"version":1,"desired":"pau')
    assert not control.pause_asked()
    os.write(writing, b'se"}\n')
    assert control.pause_asked()
    assert control.pause_asked()
    os.write(writing, b'{"version":1,"desired":"run"}\n')
    assert not control.pause_asked()
    os.close(writing)
    assert not control.pause_asked()
    os.close(reading)
