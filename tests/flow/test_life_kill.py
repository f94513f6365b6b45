"""Trainer, supervisor and server killed with -9 in the middle of a real training: nothing lost, nothing twice."""

import os
import signal

import pytest

from tunesmith.supervisor import tree

pytestmark = pytest.mark.slow

N_EPOCHS = 4
N_STEPS = 40


def once_each(server, job):
    """Check what every run owes, however often it was killed."""
    done = server.reaches(job, "succeeded")
    assert server.steps(job) == list(range(1, N_STEPS + 1))
    texts = server.texts(job)
    assert texts[0] == f"Created fine-tuning job: {job}"
    assert texts[-2:] == [f"New fine-tuned model created: {done.fine_tuned_model}", "The job has successfully completed"]
    assert len(texts) == len(set(texts))
    assert len({event.id for event in server.events(job)}) == len(texts)
    with server.client as client:
        listed = client.fine_tuning.jobs.checkpoints.list(job).data
    assert [checkpoint.step_number for checkpoint in listed] == [40, 30, 20]
    assert listed[0].fine_tuned_model_checkpoint == done.fine_tuned_model
    assert len(server.results(job).splitlines()) == N_STEPS + 1
    return texts


def after_first_checkpoint(server, job, eventually):
    """Wait until the job has a checkpoint and a few steps more."""
    eventually(lambda: len(server.steps(job)) > 12, "steps after the first checkpoint")
    assert server.status(job) == "running"


@pytest.fixture
def slowly():
    """Steps slow enough to be killed between."""
    return "train.step=sleep:0.15"


def trainer_of(server, job, attempt):
    supervisor = server.handle(job, attempt)["pid"]
    return supervisor, next(process.pid for process in tree.tagged(job, attempt) if process.pid != supervisor)


def test_a_killed_trainer_goes_on_from_its_last_checkpoint(make_server, eventually, slowly):
    server = make_server(failpoints=slowly)
    job = server.create(server.upload(), n_epochs=N_EPOCHS)
    after_first_checkpoint(server, job, eventually)
    os.kill(trainer_of(server, job, 2)[1], signal.SIGKILL)
    texts = once_each(server, job)
    lost = "The worker was killed by signal 9; the job goes on from its checkpoint at step "
    (told,) = [text for text in texts if text.startswith(lost)]
    resumed = int(told.removeprefix(lost))
    assert resumed in (10, 20, 30)
    assert f"Fine-tuning job continues after step {resumed}" in texts
    assert next(event.level for event in server.events(job) if event.message == told) == "warn"
    undisturbed = server.create(server.jobs and server.job(job).training_file, n_epochs=N_EPOCHS)
    server.reaches(undisturbed, "succeeded")
    assert server.results(job) == server.results(undisturbed), "a resumed run ends as an undisturbed one"


def test_a_killed_supervisor_takes_its_trainer_along_and_the_job_goes_on(make_server, eventually, slowly):
    server = make_server(failpoints=slowly)
    job = server.create(server.upload(), n_epochs=N_EPOCHS)
    after_first_checkpoint(server, job, eventually)
    supervisor, trainer = trainer_of(server, job, 2)
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: tree.start_time(trainer) is None, "the trainer's death", within_s=30)
    texts = once_each(server, job)
    assert any(text.startswith("The worker and its supervisor were killed; the job goes on") for text in texts)


def test_a_killed_server_loses_nothing_that_it_had_answered_for(make_server, eventually, slowly):
    server = make_server(failpoints=slowly)
    file = server.upload()
    job = server.create(file, n_epochs=N_EPOCHS)
    after_first_checkpoint(server, job, eventually)
    waiting, dropped = server.create(file, n_epochs=N_EPOCHS), server.create(file, n_epochs=N_EPOCHS)
    server.cancel(dropped)
    known = {event.id: event.message for event in server.events(job)}
    server.kill()
    old = {process.pid for process in tree.tagged(job)}
    assert old, "the tree works on while the server is away"
    server.start()
    assert server.status(dropped) == "cancelled"
    assert server.status(waiting) in ("validating_files", "queued")
    eventually(lambda: old.isdisjoint(process.pid for process in tree.tagged(job)), "the old tree is gone", within_s=60)
    texts = once_each(server, job)
    assert known.items() <= {event.id: event.message for event in server.events(job)}.items()
    assert any(text.startswith("The server was restarted while the job was running; the job goes on") for text in texts)
    once_each(server, waiting)
    assert server.texts(dropped)[-1] == "The job was cancelled"


def test_what_the_worker_finished_while_the_server_was_away_counts(make_server, eventually, slowly):
    server = make_server(failpoints=slowly)
    job = server.create(server.upload(), n_epochs=N_EPOCHS)
    after_first_checkpoint(server, job, eventually)
    server.kill()
    eventually(lambda: tree.tagged(job) == [], "the worker finishes, and its supervisor gives up waiting")
    server.start()
    texts = once_each(server, job)
    assert not any("restarted" in text for text in texts), "the spool held the end: no second run"


def test_a_server_that_is_stopped_leaves_nothing_running_and_goes_on_later(make_server, eventually, slowly):
    server = make_server(failpoints=slowly)
    job = server.create(server.upload(), n_epochs=N_EPOCHS)
    after_first_checkpoint(server, job, eventually)
    server.kill(signal.SIGTERM)
    assert tree.tagged(job) == []
    server.start()
    once_each(server, job)
