"""Reinforcement whose grader hangs: in the sandbox, or at a judge that never answers. Cancel and pause don't wait for it."""

import time

import httpx2
import pytest

from far import FarModel, far_server
from far.judging import MODELS, SCORE
from tunesmith.supervisor import tree

pytestmark = pytest.mark.slow

SLEEPS = {
    "type": "python",
    "name": "sleeps",
    "source": "import time\ndef grade(sample, item):\n    time.sleep(110)\n    return 1",
}
#: Left to itself a base with random weights talks until its context is full.
SHORT = {"type": "json_schema", "json_schema": {"name": "said", "schema": {"enum": ["yes", "no"]}}}
#: Supervisor and trainer; whatever else has the job's tag is of the sandbox.
N_OWN = 2


@pytest.fixture
def far():
    with far_server() as server:
        server.models["judge"] = FarModel()
        yield server


def level(http):
    """Return the sandbox's level once it is known."""
    return http.get("/readyz").json()["sandbox"]


@pytest.fixture
def hanging(request, make_server, eventually, far):
    """Return a server, a job whose grader hangs, and what lets it go on."""
    server = make_server(validation_slots=1)
    with httpx2.Client(base_url=server.url.removesuffix("/v1"), timeout=120, trust_env=False) as http:
        if request.param == "python":
            if eventually(lambda: (found := level(http)) != "probing" and found, "the sandbox is probed") == "none":
                pytest.skip("this host gives no sandbox")
            grader = SLEEPS
        else:
            added = http.post(MODELS, json={"name": "judge", "upstream": {"url": far.url}})
            assert added.status_code == 200, added.text
            grader = SCORE
    file, block = server.upload(method="reinforcement"), {"grader": grader, "response_format": SHORT}
    far.gate.clear()
    job = server.create(file, n_epochs=1, method="reinforcement", block=block)
    server.reaches(job, "running")
    if request.param == "python":
        eventually(lambda: len(tree.tagged(job, 2)) > N_OWN + 1, "a call in the sandbox")
    else:
        eventually(lambda: far.n_now > 0, "the judge is asked")
    return server, job


@pytest.mark.parametrize("hanging", ["python", "judge"], indirect=True)
def test_a_cancel_does_not_wait_for_a_grader(hanging, eventually):
    server, job = hanging
    following = server.create(server.upload())
    server.reaches(following, "queued")
    began = time.monotonic()
    answer = server.cancel(job)
    assert answer.status == "cancelled"
    assert time.monotonic() - began < 10
    eventually(lambda: tree.tagged(job) == [], "nothing is left, also not of the sandbox", within_s=10)
    server.reaches(following, "running")
    assert server.texts(job)[-1] == "The job was cancelled"
    server.cancel(following)
    eventually(lambda: tree.tagged(following) == [], "the next tree is gone", within_s=10)
    assert server.job(job) == answer


@pytest.mark.parametrize("hanging", ["python", "judge"], indirect=True)
def test_a_pause_does_not_wait_for_a_grader(hanging, eventually, far):
    server, job = hanging
    with server.client as client:
        client.fine_tuning.jobs.pause(job)
        began = time.monotonic()
        server.reaches(job, "paused")
        assert time.monotonic() - began < 60, "a judge's patience, and the sandbox's, are longer"
        eventually(lambda: tree.tagged(job) == [], "the worker has left", within_s=30)
        (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(job).data
        assert checkpoint.step_number == 0, "before the first step, in its evaluation"
        asks_judge = far.n_now > 0 or far.judged()
        far.gate.set()
        client.fine_tuning.jobs.resume(job)
    if asks_judge:
        server.reaches(job, "succeeded")
        assert server.steps(job) == list(range(11))
    else:
        server.reaches(job, "running")
        server.cancel(job)
        eventually(lambda: tree.tagged(job) == [], "nothing is left", within_s=30)
