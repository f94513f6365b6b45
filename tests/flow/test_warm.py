"""Jobs on warm spares, with a real server: the same bits as cold, and nothing lost at any moment of the hand-over."""

import contextlib
import hashlib
import json
import os
import signal
import urllib.request

import openai
import pytest

from laws.thorough import some
from tunesmith.supervisor import tag, tree

pytestmark = pytest.mark.slow


def spares(server):
    with urllib.request.urlopen(f"{server.url.removesuffix('/v1')}/tunesmith/v1/spares") as answer:
        return json.load(answer)


def ready(server, eventually, *kinds):
    """Wait until a spare of each kind is ready and return their supervisors' numbers by kind."""

    def found():
        pids = {spare["kind"]: spare["pid"] for spare in spares(server)["data"] if spare["status"] == "ready"}
        return pids if pids.keys() >= set(kinds) else None

    return eventually(found, f"spares that are ready: {kinds}")


def waiting(server):
    return {process.pid for process in tree.tagged(tag.spare_name(str(server.data_dir)))}


def adapters(server, job):
    """Return the names and hashes of what a job's trainings wrote under the blobs, timings left out."""
    folder = server.data_dir / "blobs" / "jobs" / job / "attempts"
    found = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.safetensors")
    }
    assert found
    return found


@pytest.mark.parametrize("threads", some([1, 2], [2]))
def test_a_warm_training_ends_in_the_same_bits_as_a_cold_one(make_server, eventually, threads):
    server = make_server(warm_spares=1, training_threads=threads)
    file = server.upload()
    pids = ready(server, eventually, "validate", "train")
    warm = server.create(file)
    done = server.reaches(warm, "succeeded")
    assert [server.handle(warm, attempt)["pid"] for attempt in (1, 2)] == [pids["validate"], pids["train"]]
    server.kill(signal.SIGTERM)
    assert waiting(server) == set()
    server.settings["warm_spares"] = 0
    server.start()
    assert spares(server)["data"] == []
    cold = server.create(file)
    assert server.reaches(cold, "succeeded").trained_tokens == done.trained_tokens
    assert adapters(server, warm) == adapters(server, cold)
    assert server.results(warm) == server.results(cold)
    for job in (warm, cold):
        log = server.data_dir / "attempts" / job / "2" / "stderr.log"
        assert "train.loaded" in log.read_text()


@pytest.mark.parametrize(
    "point",
    some(
        ["executor.hand_over", "executor.rename.handle", "executor.handed_over", "placement.placed"],
        ["executor.handed_over", "placement.placed"],
    ),
)
def test_a_server_killed_in_a_hand_over_loses_nothing(make_server, eventually, point):
    server = make_server(warm_spares=1, failpoints=f"{point}=kill")
    ready(server, eventually, "validate")
    file = server.upload()
    with contextlib.suppress(openai.APIConnectionError):  # it may die before it has answered
        server.create(file)
    assert server.process is not None
    assert server.process.wait(60) == -signal.SIGKILL
    server.kill()
    eventually(lambda: waiting(server) == set(), "whoever had no task has left")
    server.failpoints = ""
    server.start()
    with server.client as client:
        (job,) = [job.id for job in client.fine_tuning.jobs.list()]
    server.jobs.append(job)
    server.reaches(job, "succeeded")
    eventually(lambda: tree.tagged(job) == [], "nothing of the job is left")


@pytest.mark.parametrize(
    ("point", "lost"),
    some([("spare.asked", 0), ("spare.taken", 1), ("spare.told", 1)], [("spare.asked", 0), ("spare.told", 1)]),
)
def test_a_spare_killed_in_a_hand_over_costs_an_attempt_at_most(make_server, eventually, point, lost):
    server = make_server(warm_spares=1, failpoints=f"{point}=kill")
    ready(server, eventually, "validate")
    job = server.create(server.upload())
    server.reaches(job, "succeeded")
    n_lost = len([text for text in server.texts(job) if text.startswith("The worker ")])
    assert lost <= n_lost <= 2 * lost, "of each kind one at most: the next spare is made later than the next attempt"
    eventually(lambda: tree.tagged(job) == [], "nothing of the job is left")


@pytest.mark.parametrize(
    "point",
    some(
        ["executor.hand_over", "executor.handed_over", "spare.asked", "spare.told"], ["executor.handed_over", "spare.told"]
    ),
)
def test_a_cancel_in_a_hand_over_leaves_nothing(make_server, eventually, point):
    server = make_server(warm_spares=1, failpoints=f"{point}=sleep:0.8")
    pid = ready(server, eventually, "validate")["validate"]
    job = server.create(server.upload())
    handle = server.data_dir / "attempts" / job / "1" / "handle.json"
    eventually(handle.exists, "the hand-over")
    assert server.cancel(job).status == "cancelled"
    eventually(lambda: tree.start_time(pid) is None and tree.tagged(job) == [], "nothing of the spare is left")
    assert server.status(job) == "cancelled"


def test_a_killed_server_leaves_no_spares_and_the_next_one_makes_its_own(make_server, eventually):
    server = make_server(warm_spares=1)
    before = ready(server, eventually, "validate", "train")
    assert spares(server)["memory_bytes"] < spares(server)["max_bytes"]
    server.kill()
    eventually(lambda: waiting(server) == set(), "they have left")
    server.start()
    assert ready(server, eventually, "validate") != before


def test_a_job_whose_spare_was_killed_starts_cold(make_server, eventually):
    server = make_server(warm_spares=1)
    pids = ready(server, eventually, "validate", "train")
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    job = server.create(server.upload())
    server.reaches(job, "succeeded")
    assert not any("worker" in text for text in server.texts(job)), "no attempt was lost"
    assert server.handle(job, 1)["pid"] not in pids.values()


def test_the_next_job_is_warm_too(make_server, eventually):
    server = make_server(warm_spares=1)
    file = server.upload()
    first = ready(server, eventually, "validate")["validate"]
    job = server.create(file)
    server.reaches(job, "succeeded")
    second = ready(server, eventually, "validate", "train")
    assert second["validate"] != first
    other = server.create(file)
    server.reaches(other, "succeeded")
    assert [server.handle(other, attempt)["pid"] for attempt in (1, 2)] == [second["validate"], second["train"]]
