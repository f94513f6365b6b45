"""Trainer, supervisor and server killed with -9 in the middle of a real training: nothing lost, nothing twice."""

import os
import shutil
import signal
from typing import Any

import pytest

from laws.thorough import some
from tunesmith.methods.method import METHODS
from tunesmith.supervisor import tree

pytestmark = pytest.mark.slow

N_EPOCHS = 4
N_STEPS = 40


def once_each(server, job, *, also=()):
    """Check what every run owes, however often it was killed; `also` has checkpoints beside the epochs'."""
    done = server.reaches(job, "succeeded")
    rewards = done.method.type == "reinforcement"
    steps = list(range(0 if rewards else 1, N_STEPS + 1))
    assert server.steps(job) == steps
    texts = server.texts(job)
    assert texts[0] == f"Created fine-tuning job: {job}"
    assert texts[-2:] == [f"New fine-tuned model created: {done.fine_tuned_model}", "The job has successfully completed"]
    assert len(texts) == len(set(texts))
    assert len({event.id for event in server.events(job)}) == len(texts)
    with server.client as client:
        listed = client.fine_tuning.jobs.checkpoints.list(job).data
    kept = {checkpoint.step_number for checkpoint in listed}
    # of rewards the best three stay, whichever they are, and the last one
    assert {40} < kept < {10, 20, 30, 40, *also} if rewards and not also else kept == {40, 30, 20, *also}
    assert listed[0].fine_tuned_model_checkpoint == done.fine_tuned_model
    assert [int(row["step"]) for row in server.results(job)] == steps
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


@pytest.mark.parametrize("method", some(list(METHODS), ["supervised", "reinforcement"]))
def test_a_killed_trainer_goes_on_from_its_last_checkpoint(make_server, eventually, slowly, method):
    server = make_server(failpoints=slowly)
    job = server.create(server.upload(method=method), n_epochs=N_EPOCHS, method=method)
    after_first_checkpoint(server, job, eventually)
    os.kill(trainer_of(server, job, 2)[1], signal.SIGKILL)
    texts = once_each(server, job)
    lost = "The worker was killed by signal 9; the job goes on from its checkpoint at step "
    (told,) = [text for text in texts if text.startswith(lost)]
    resumed = int(told.removeprefix(lost))
    assert resumed in (10, 20, 30)
    assert f"Fine-tuning job continues after step {resumed}" in texts
    assert next(event.level for event in server.events(job) if event.message == told) == "warn"
    undisturbed = server.create(server.job(job).training_file, n_epochs=N_EPOCHS, method=method)
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


def tree_of(server, job, attempt=2):
    """Return the processes of an attempt."""
    return {process.pid for process in tree.tagged(job, attempt)}


@pytest.mark.parametrize(
    ("number", "method"),
    some(
        [(signal.SIGKILL, "supervised"), (signal.SIGTERM, "supervised"), (signal.SIGKILL, "reinforcement")],
        [(signal.SIGTERM, "supervised"), (signal.SIGKILL, "reinforcement")],
    ),
)
def test_a_server_that_ends_leaves_its_jobs_running_and_the_next_one_adopts_them(make_server, eventually, number, method):
    server = make_server(failpoints="train.step=sleep:15@20")  # in which the server ends and the next one starts
    file = server.upload(method=method)
    job = server.create(file, n_epochs=N_EPOCHS, method=method)
    after_first_checkpoint(server, job, eventually)
    waiting, dropped = (server.create(file, n_epochs=1, method=method) for _ in range(2))
    server.cancel(dropped)
    known = {event.id: event.message for event in server.events(job)}
    processes = tree_of(server, job)
    server.kill(number)
    assert tree_of(server, job) == processes, "the tree works on while the server is away"
    server.start()
    assert server.status(dropped) == "cancelled"
    assert server.status(job) == "running"
    assert tree_of(server, job) == processes
    texts = once_each(server, job)
    assert known.items() <= {event.id: event.message for event in server.events(job)}.items()
    assert not any("gone" in text or "killed" in text or "continues" in text for text in texts)
    server.reaches(waiting, "succeeded")
    assert server.texts(dropped)[-1] == "The job was cancelled"


def test_what_the_worker_finished_while_the_server_was_away_counts(make_server, eventually, slowly):
    server = make_server(failpoints=slowly)
    job = server.create(server.upload(), n_epochs=N_EPOCHS)
    after_first_checkpoint(server, job, eventually)
    server.kill()
    eventually(lambda: tree.tagged(job) == [], "the worker finishes, and its supervisor gives up waiting")
    server.start()
    texts = once_each(server, job)
    assert not any("gone" in text for text in texts), "the spool held the end: no second run"


@pytest.mark.parametrize("booted", some([False, True], [True]))
def test_everything_killed_at_once_goes_on_from_the_last_checkpoint(make_server, eventually, slowly, booted):
    server = make_server(failpoints=slowly, max_attempts=1)
    job = server.create(server.upload(), n_epochs=N_EPOCHS)
    after_first_checkpoint(server, job, eventually)
    processes = tree_of(server, job)
    server.process.send_signal(signal.SIGSTOP)  # as in a container that is stopped: nobody sees the others die
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    server.kill()
    if booted:
        server.boot_anew()
    server.start()
    texts = once_each(server, job)
    boots = {server.handle(job, attempt)["boot_id"] for attempt in (2, 3)}
    assert len(boots) == 1 + booted
    (told,) = [text for text in texts if text.startswith("The worker was gone when the server came back; the job goes on")]
    assert told.rpartition(" ")[2] in ("10", "20", "30")
    undisturbed = server.create(server.job(job).training_file, n_epochs=N_EPOCHS)
    server.reaches(undisturbed, "succeeded")
    assert server.results(job) == server.results(undisturbed)


def test_a_drain_pauses_what_runs_and_the_next_start_resumes_just_that(make_server, eventually, slowly):
    server = make_server(failpoints=slowly, drain="true")
    file = server.upload()
    job = server.create(file, n_epochs=N_EPOCHS)
    after_first_checkpoint(server, job, eventually)
    rests = server.create(file, n_epochs=1)
    server.reaches(rests, "queued")
    with server.client as client:
        assert client.fine_tuning.jobs.pause(rests).status == "paused"
    server.kill(signal.SIGTERM)
    assert tree.tagged(job) == []
    server.start()
    with server.client as client:
        (newest, *_) = client.fine_tuning.jobs.checkpoints.list(job).data
    texts = once_each(server, job, also=[newest.step_number])
    step = next(int(text.rpartition(" ")[2]) for text in texts if text.startswith("The job was paused after step"))
    assert step == newest.step_number
    told = texts.index("Pause requested: the server is about to end")
    assert told < texts.index(f"The job was paused after step {step}") < texts.index("The job was resumed")
    assert f"Fine-tuning job continues after step {step}" in texts
    assert server.status(rests) == "paused", "its owner wants it so"
    with server.client as client:
        log = client.get(f"{server.url.removesuffix('/v1')}/tunesmith/v1/audit?limit=100", cast_to=dict[str, Any])["data"]
    by_server = [(each["action"], each["objects"]) for each in log[::-1] if each["actor"] == "system"]
    assert by_server[:2] == [("job.pause_requested", [job]), ("job.resumed", [job])]


def test_a_supervisor_ends_when_its_data_folder_is_removed(make_server, eventually):
    server = make_server(failpoints="worker.train=sleep:600")
    job = server.create(server.upload())
    server.reaches(job, "running")
    eventually(lambda: len(tree.tagged(job)) == 2, "supervisor and worker")
    server.kill(signal.SIGTERM)
    assert len(tree.tagged(job)) == 2
    shutil.rmtree(server.data_dir)
    eventually(lambda: tree.tagged(job) == [], "nobody can ever take its work", within_s=30)


def test_a_worker_without_a_server_ends_when_its_lease_does(make_server, eventually):
    server = make_server(failpoints="worker.train=sleep:600", lease_s=1)
    job = server.create(server.upload())
    server.reaches(job, "running")
    server.kill()
    eventually(lambda: tree.tagged(job) == [], "the lease expires", within_s=30)
    server.start()
    lease = "The worker could not reach the server any more and ended itself: its lease had expired; the job starts again"
    eventually(lambda: lease in server.texts(job), "it is told why")
    server.reaches(job, "running")
    assert server.cancel(job).status == "cancelled"
