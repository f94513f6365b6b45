"""Pause and resume with real processes: nothing is lost, nothing is done twice, and the end is the same to the bit."""

import random
import signal
import time

import openai
import pytest

from laws.thorough import some
from tunesmith.methods.method import METHODS
from tunesmith.supervisor import tree

N_EPOCHS = 2
N_STEPS = 20
HELD_VALIDATION = "worker.validate=sleep:600"


def adapter(server, job):
    """Return the bytes of the finished adapter."""
    last = f"attempts/*/checkpoints/{N_STEPS:06d}/adapter_model.safetensors"
    (found,) = (server.data_dir / "blobs" / "jobs" / job).glob(last)
    return found.read_bytes()


def measured(server, job):
    """Return what was told of every step, without how long it took."""
    figures = [event.data for event in server.events(job) if event.type == "metrics"]
    return [{name: figure for name, figure in each.items() if name != "timing"} for each in figures]


def listed(server, job):
    with server.client as client:
        return client.fine_tuning.jobs.checkpoints.list(job).data


def pause(server, job):
    with server.client as client:
        return client.fine_tuning.jobs.pause(job)


def resume(server, job):
    with server.client as client:
        return client.fine_tuning.jobs.resume(job)


def paused(server, job):
    """Pause a job that trains, and check what every pause owes; return its checkpoint."""
    pause(server, job)
    rest = server.reaches(job, "paused")
    assert (rest.estimated_finish, rest.finished_at, rest.fine_tuned_model) == (None, None, None)
    newest = listed(server, job)[0]
    assert newest.step_number == max(server.steps(job), default=0)
    assert newest.fine_tuned_model_checkpoint.endswith(f":ckpt-step-{newest.step_number}")
    assert server.texts(job)[-1] == f"The job was paused after step {newest.step_number}"
    assert pause(server, job) == rest
    return newest


@pytest.mark.slow
@pytest.mark.parametrize("method", some(list(METHODS), ["supervised", "reinforcement"]))
def test_a_job_paused_at_random_points_and_over_restarts_ends_as_an_undisturbed_one(make_server, eventually, method):
    server = make_server(failpoints="train.step=sleep:0.25")
    file = server.upload(method=method)
    straight = server.create(file, n_epochs=N_EPOCHS, method=method)
    chance = random.Random(4)
    server.reaches(straight, "succeeded")
    job = server.create(file, n_epochs=N_EPOCHS, method=method)
    checkpoints = []
    for restart in (None, signal.SIGKILL, signal.SIGTERM):  # the machine is booted anew with the last
        point = len(server.steps(job)) + chance.randint(1, 3)
        eventually(lambda point=point: len(server.steps(job)) >= point, f"step {point}")
        checkpoints.append(paused(server, job))
        eventually(lambda: tree.tagged(job) == [], "the worker has left")
        if restart is not None:
            server.kill(restart)
            if restart == signal.SIGTERM:
                server.boot_anew()
            server.start()
            assert server.status(job) == "paused"
        answer = resume(server, job)
        assert answer.status == "queued"
    done = server.reaches(job, "succeeded")
    assert adapter(server, job) == adapter(server, straight)
    assert server.results(job) == server.results(straight)
    assert measured(server, job) == measured(server, straight)
    assert done.trained_tokens == server.job(straight).trained_tokens
    texts = server.texts(job)
    assert (texts.count("Pause requested"), texts.count("The job was resumed")) == (3, 3)
    for checkpoint in checkpoints:
        assert f"Fine-tuning job continues after step {checkpoint.step_number}" in texts
    assert not any("restarted" in text or "killed" in text for text in texts)
    steps = [checkpoint.step_number for checkpoint in listed(server, job)]
    assert steps == sorted({N_STEPS, N_STEPS // 2, *(checkpoint.step_number for checkpoint in checkpoints)}, reverse=True)


@pytest.mark.slow
def test_a_paused_checkpoint_answers_by_name_also_after_a_cancel(make_server, eventually):
    server = make_server(failpoints="train.step=sleep:0.1")
    job = server.create(server.upload(), n_epochs=N_EPOCHS)
    eventually(lambda: len(server.steps(job)) >= 3, "a few steps")
    name = paused(server, job).fine_tuned_model_checkpoint
    question = [{"role": "user", "content": "number 3"}]
    with server.client as client:
        first = client.chat.completions.create(model=name, messages=question, max_tokens=4, temperature=0, timeout=120)
        with pytest.raises(openai.BadRequestError, match="paused"):
            client.models.delete(name)
        began = time.monotonic()
        assert client.fine_tuning.jobs.cancel(job).status == "cancelled"
        assert time.monotonic() - began < 10
        again = client.chat.completions.create(model=name, messages=question, max_tokens=4, temperature=0)
    assert again.choices[0].message.content == first.choices[0].message.content
    assert [checkpoint.fine_tuned_model_checkpoint for checkpoint in listed(server, job)] == [name]
    for call in (pause, resume):
        with pytest.raises(openai.BadRequestError, match=f"Job {job} was cancelled"):
            call(server, job)


def test_a_training_that_cannot_pause_yet_says_running_and_the_pause_can_be_withdrawn(make_server):
    server = make_server(failpoints="worker.train=sleep:600")
    job = server.create(server.upload())
    server.reaches(job, "running")
    began = time.monotonic()
    answer = pause(server, job)
    assert answer.status == "running"
    assert 4.5 < time.monotonic() - began < 15
    assert server.texts(job)[-1] == "Pause requested"
    assert resume(server, job).status == "running"
    assert server.texts(job)[-1] == "Pause withdrawn"
    assert server.cancel(job).status == "cancelled"


def test_a_validation_is_paused_at_once_and_begins_anew(make_server, eventually):
    server = make_server(failpoints=HELD_VALIDATION, validation_slots=1)
    job = server.create(server.upload())
    eventually(lambda: len(tree.tagged(job)) >= 2, "the validation runs")
    assert pause(server, job).status == "paused"
    eventually(lambda: tree.tagged(job) == [], "the validation is gone", within_s=30)
    assert resume(server, job).status == "validating_files"
    eventually(lambda: len(tree.tagged(job)) >= 2, "the validation runs again")
    assert server.cancel(job).status == "cancelled"


def test_a_queued_job_gives_its_place_away(make_server, eventually):
    server = make_server(failpoints="worker.train=sleep:600", validation_slots=1)
    file = server.upload()
    first, second, third = (server.create(file) for _ in range(3))
    server.reaches(first, "running")
    server.reaches(second, "queued")
    server.reaches(third, "queued")
    assert pause(server, second).status == "paused"
    server.cancel(first)
    server.reaches(third, "running")
    assert server.status(second) == "paused"
    assert resume(server, second).status == "queued"
