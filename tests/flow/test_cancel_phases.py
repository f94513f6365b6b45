"""Cancel in every phase of every registered method's training: final at once, nothing left, the next job's turn."""

import time

import openai
import pytest

from laws.thorough import THOROUGH
from tunesmith.methods.method import METHODS
from tunesmith.supervisor import tree

#: Where a training is held for each phase in which it does not matter which method it is of.
ANY = {
    "warm start": "worker.train=sleep:600",
    "model load": "train.load=sleep:600",
    "first step": "train.step=sleep:600@1",
    "upload": "checkpoint.manifest=sleep:600",
    "publish": "train.finished=sleep:600",
}
#: And where it does. The twenty rows make ten steps an epoch; validation is measured at the tenth.
PHASES = {
    "inside a step": "train.backward=sleep:600@4",
    "checkpoint save": "checkpoint.put=sleep:600@2",
    "after a checkpoint": "train.step=sleep:600@14",
}
#: Of the methods whose examples are read from the file.
READ = {"tokenising": "train.tokenise=sleep:600@3", "evaluation": "train.evaluate=sleep:600"}
#: Of the method that samples them, the validation's before the first step too: every answer is nine passes long.
SAMPLED = {
    "evaluation before the first step": "sampler.step=sleep:600@3",
    "sampling": "sampler.step=sleep:600@12",
    "evaluation": "sampler.step=sleep:600@91",
}
#: Every phase is gone through each time, by one of its methods; by all of them in `make soak`.
EACH_TIME = {
    "supervised": {"inside a step", "evaluation"},
    "dpo": {"checkpoint save", "tokenising"},
    "reinforcement": {"after a checkpoint", *SAMPLED},
}
#: Checkpoints that were complete before the cancel, where there were any.
COMPLETE = {"after a checkpoint": [10], "publish": [10]}


def training(job):
    """Return the job's tree while it trains."""
    return tree.tagged(job, 2)


def held_at(server, job, point):
    """Say whether the second attempt of a job, its training, is at a failpoint."""
    log = server.data_dir / "attempts" / job / "2" / "stderr.log"
    return log.exists() and f"failpoint {point}\n" in log.read_text()


def cases():
    """Return every phase of every method, with the failpoint that holds it there."""
    return [pytest.param("supervised", phase, point, id=phase) for phase, point in ANY.items()] + [
        pytest.param(method, phase, point, id=f"{phase}-{method}")
        for method in METHODS
        for phase, point in (PHASES | (SAMPLED if method == "reinforcement" else READ)).items()
        if THOROUGH or phase in EACH_TIME[method]
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "phase", "held"), cases())
def test_a_cancel_is_final_in_every_phase(make_server, eventually, method, phase, held):
    server = make_server(failpoints=held, validation_slots=1)
    file = server.upload(method=method)
    job = server.create(file, method=method, validation_file=server.upload(9, method=method))
    point = held.partition("=")[0]
    eventually(lambda: held_at(server, job, point), phase)
    following = server.create(file, method=method)
    server.reaches(following, "queued")
    began = time.monotonic()
    answer = server.cancel(job)
    took_s = time.monotonic() - began
    assert answer.status == "cancelled"
    assert took_s < 10
    eventually(lambda: training(job) == [], "the tree is gone", within_s=10)
    server.reaches(following, "running")
    texts = server.texts(job)
    assert texts[-1] == "The job was cancelled"
    with server.client as client:
        listed = client.fine_tuning.jobs.checkpoints.list(job).data
        assert [checkpoint.step_number for checkpoint in listed] == COMPLETE.get(phase, [])
        names = [model.id for model in client.models.list()]
    assert {name for name in names if name.startswith("ft:")} == {kept.fine_tuned_model_checkpoint for kept in listed}
    server.cancel(following)
    eventually(lambda: tree.tagged(following) == [], "the next tree is gone", within_s=10)
    assert server.texts(job) == texts, "nobody writes into a job that has ended"
    assert server.job(job) == answer


@pytest.mark.slow
def test_the_checkpoints_of_a_cancelled_job_answer(make_server, eventually):
    server = make_server(failpoints=PHASES["after a checkpoint"])
    job = server.create(server.upload())
    eventually(lambda: held_at(server, job, "train.step") and len(server.steps(job)) >= 13, "the fourteenth step")
    server.cancel(job)
    with server.client as client:
        (kept,) = client.fine_tuning.jobs.checkpoints.list(job).data
        said = client.chat.completions.create(
            model=kept.fine_tuned_model_checkpoint,
            messages=[{"role": "user", "content": "number 3"}],
            max_tokens=4,
            timeout=120,
        )
    assert said.choices[0].finish_reason in ("stop", "length")


def test_cancel_while_a_huge_file_is_validated(make_server, eventually):
    server = make_server(validation_slots=1)
    job = server.create(server.upload(150_000))
    eventually(lambda: any("%" in text for text in server.texts(job)), "it tells how far it is")
    assert server.status(job) == "validating_files"
    assert server.cancel(job).status == "cancelled"
    eventually(lambda: tree.tagged(job) == [], "the validation is gone", within_s=10)
    assert server.texts(job)[-1] == "The job was cancelled"


def test_cancel_while_the_server_restarts(make_server, eventually):
    server = make_server(failpoints=ANY["warm start"])
    job = server.create(server.upload())
    server.reaches(job, "running")
    server.kill()
    with pytest.raises(openai.APIConnectionError):
        server.cancel(job)
    assert training(job)
    server.start()
    assert server.cancel(job).status == "cancelled"
    eventually(lambda: tree.tagged(job) == [], "the tree of the first server is gone", within_s=10)
    assert server.texts(job)[-1] == "The job was cancelled"


def test_queued_jobs_are_cancelled_beside_one_that_trains(make_server, eventually):
    server = make_server(failpoints=ANY["warm start"])
    file = server.upload()
    first = server.create(file)
    server.reaches(first, "running")
    waiting = [server.create(file) for _ in range(20)]
    for job in waiting:
        assert server.cancel(job).status == "cancelled"
    eventually(lambda: not any(tree.tagged(job) for job in waiting), "nothing of them is left", within_s=30)
    assert server.status(first) == "running"
