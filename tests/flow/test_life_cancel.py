"""Cancel in every phase: final in the answer, nothing left alive, nobody can write any more, the next job starts."""

import contextlib
import http.client
import json
import os
import socket
import time

import openai
import pytest

from tunesmith.core.channel import Report
from tunesmith.supervisor import tree

HELD_TRAINING = "worker.train=sleep:600"
HELD_VALIDATION = "worker.validate=sleep:600"

ONLY_SLOT = "Waiting: the only training slot is in use"
#: The next job has begun this long after a cancel at the latest.
NEXT_S = 2.0

#: Makes every training's process a tree that ignores what can be ignored, before the product's code runs in it.
DEAF = """
import json, os, signal, sys, time
if "TUNESMITH_REPORT_FD" in os.environ:
    with open(sys.orig_argv[-1]) as file:
        kind = json.load(file)["kind"]
    if kind == "train":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                time.sleep(600)
            time.sleep(600)
        while True:
            time.sleep(1)
"""


def cancelled_at_once(server, job, eventually):
    """Cancel, and check what every cancel owes."""
    began = time.monotonic()
    answer = server.cancel(job)
    took_s = time.monotonic() - began
    assert answer.status == "cancelled"
    assert answer.finished_at is not None
    assert took_s < 10
    eventually(lambda: tree.tagged(job) == [], "the last process is gone", within_s=30)
    assert server.texts(job)[-1] == "The job was cancelled"
    again = server.cancel(job)
    assert (again.status, again.finished_at) == ("cancelled", answer.finished_at)


def test_cancel_while_validating(make_server, eventually):
    server = make_server(failpoints=HELD_VALIDATION, validation_slots=1)
    file = server.upload()
    first, second = server.create(file), server.create(file)
    eventually(lambda: len(tree.tagged(first)) >= 2, "the first validation runs")
    assert tree.tagged(second) == [], "one validation slot"
    assert server.status(first) == "validating_files"
    cancelled_at_once(server, first, eventually)
    eventually(lambda: len(tree.tagged(second)) >= 2, "the next validation starts")
    assert server.texts(first) == [
        f"Created fine-tuning job: {first}", f"Validating training file: {file}", "The job was cancelled",
    ]  # fmt: skip


def test_cancel_while_queued_and_while_running_one_slot_for_two(make_server, eventually):
    server = make_server(failpoints=HELD_TRAINING)
    file = server.upload()
    first = server.create(file)
    server.reaches(first, "running")
    second, third = server.create(file), server.create(file)
    server.reaches(second, "queued")
    server.reaches(third, "queued")
    for job in (second, third):
        eventually(lambda job=job: server.texts(job)[-1].startswith(f"{ONLY_SLOT}; "), "it is told why it waits")
    cancelled_at_once(server, second, eventually)
    assert server.status(first) == "running"
    assert server.status(third) == "queued"
    began = time.monotonic()
    server.cancel(first)
    server.reaches(third, "running")
    assert time.monotonic() - began < NEXT_S
    cancelled_at_once(server, first, eventually)
    assert server.status(second) == "cancelled"
    assert [text.partition(";")[0] for text in server.texts(third)].count(ONLY_SLOT) == 1


def test_a_trainer_that_ignores_everything_is_gone_and_the_next_job_starts(make_server, eventually, tmp_path):
    path = tmp_path / "path"
    path.mkdir()
    (path / "sitecustomize.py").write_text(DEAF)
    # one validation at a time, so that the first job is the first to train
    server = make_server(more={"PYTHONPATH": f"{path}:{os.environ.get('PYTHONPATH', '')}"}, validation_slots=1)
    file = server.upload()
    first, second = server.create(file), server.create(file)
    eventually(lambda: len(tree.tagged(first)) == 4, "supervisor, trainer and its children")
    cancelled_at_once(server, first, eventually)
    eventually(lambda: len(tree.tagged(second)) == 4, "the next job's tree")


def test_two_at_once_respect_the_slots(make_server, eventually):
    # one validation at a time: jobs are queued in the order in which their files are found good
    server = make_server(failpoints=HELD_TRAINING, training_slots=2, validation_slots=1)
    file = server.upload()
    jobs = [server.create(file) for _ in range(4)]
    eventually(lambda: [server.status(job) for job in jobs] == ["running", "running", "queued", "queued"], "two of four run")
    time.sleep(1.5)
    assert [server.status(job) for job in jobs] == ["running", "running", "queued", "queued"]
    server.cancel(jobs[1])
    server.reaches(jobs[2], "running")
    assert [server.status(job) for job in jobs] == ["running", "cancelled", "running", "queued"]


class _Channel(http.client.HTTPConnection):
    """HTTP on the channel's Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("tunesmith")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def post(server, job, attempt, name, token, body):
    with contextlib.closing(_Channel(server.task(job, 2)["socket"])) as channel:
        headers = {"Authorization": f"Bearer {token}"}
        channel.request("POST", f"/internal/v1/attempts/{job}/{attempt}/{name}", json.dumps(body), headers)
        with channel.getresponse() as answer:
            return answer.status, json.loads(answer.read())


def test_a_worker_that_comes_too_late_is_refused_by_name_of_its_attempt(make_server, eventually):
    server = make_server(failpoints=HELD_TRAINING)
    job = server.create(server.upload())
    server.reaches(job, "running")
    token = eventually(lambda: server.task(job, 2)["token"], "the task")
    report = Report("metrics", job, 2, "s1", time.time(), {"step": 1, "total_steps": 2, "train_loss": 1.0})
    body = {"version": 1, "reports": [json.loads(report.to_json())]}
    assert post(server, job, 2, "heartbeat", token, {"version": 1}) == (200, {"version": 1, "desired": "run"})
    assert post(server, job, 2, "reports", "guess", body)[0] == 403
    assert post(server, job, 2, "reports", token, {**body, "version": 99})[0] == 400
    assert post(server, job, 2, "reports", token, {"version": 1, "reports": [{}]})[0] == 400
    assert post(server, job, 1, "reports", token, body)[0] == 410
    assert server.steps(job) == []
    assert post(server, job, 2, "reports", token, body)[0] == 200
    assert server.steps(job) == [1]
    cancelled_at_once(server, job, eventually)
    assert post(server, job, 2, "reports", token, body)[0] == 410
    assert post(server, job, 2, "heartbeat", token, {"version": 1})[0] == 410
    assert server.steps(job) == [1]


def test_cancelling_what_has_ended(make_server):
    server = make_server()
    job = server.create(server.upload(9))
    failed = server.reaches(job, "failed")
    assert failed.error.code == "invalid_n_examples"
    with pytest.raises(openai.BadRequestError) as refused:
        server.cancel(job)
    assert job in str(refused.value)
    assert "failed" in str(refused.value)
    assert server.texts(job)[-1] == failed.error.message
