"""The scheduler over real rows: what it does with the executor, and that one job's trouble is not another's."""

import threading

import pytest

from tunesmith.core.channel import Report
from tunesmith.domain.job import Checkpoint
from tunesmith.domain.ports import Handle, Outcome
from tunesmith.domain.reconcile import CALM_S, DYING_S
from tunesmith.domain.scope import DEFAULT_PROJECT, Everywhere, Project
from tunesmith.domain.states import Desired, Status
from tunesmith.services.attempts import token_sha256
from tunesmith.store import checkpoints, jobs, models, outbox

SCOPE = Project(DEFAULT_PROJECT)
BASES = Everywhere("a test registers a base")


def test_from_validation_to_release(rig):
    job = rig.put("j")
    assert rig.scheduler.tick() == CALM_S
    (task,) = rig.machine.started
    assert (task.kind, task.attempt, task.socket) == ("validate", 1, str(rig.socket))
    assert task.spec["training_key"] == "files/file-t"
    assert task.spec["base_path"] == "/bases/nano"
    assert task.silence_limit_s is None
    row = rig.job(job)
    assert (row.attempt, row.handle, row.token_sha256) == (
        1, {"pid": 1, "start_time": 1, "boot_id": "boot"}, token_sha256(task.token),
    )  # fmt: skip
    assert rig.texts(job) == ["Validating training file: file-t"]
    rig.report(task, "validated", "validated", n_examples=10, hyperparameters={"n_epochs": 2}, warnings=[])
    assert rig.scheduler.tick() == DYING_S, "a tree that is about to leave is looked at soon"
    assert len(rig.machine.started) == 1, "not while the validation lives"
    rig.die(task)
    rig.ticks(3)
    _, training = rig.machine.started
    assert (training.kind, training.attempt) == ("train", 2)
    assert training.spec["hyperparameters"] == {"n_epochs": 2}
    assert training.spec["output_key"] == "jobs/j/attempts/2"
    assert training.spec["resume_key"] is None
    assert rig.job(job).status is Status.RUNNING
    rig.report(training, "finished", "terminal", step=1, key="k", sha256="s", metrics={}, trained_tokens=3)
    rig.die(training)
    rig.ticks(2)
    done = rig.job(job)
    assert (done.status, done.handle, done.token_sha256) == (Status.SUCCEEDED, None, None)
    assert done.released_at is not None


def test_slots_are_kept_and_filled_in_order(make_rig):
    rig = make_rig(training_slots=2)
    rig.file("file-t")
    for number in range(4):
        rig.queued(f"j{number}", queued_at=float(number))
    rig.ticks(2)
    assert [task.job for task in rig.machine.started] == ["j0", "j1"]
    rig.report(rig.machine.started[0], "failed", "terminal", code="c", param=None, message="m")
    rig.die(rig.machine.started[0])
    rig.ticks(3)
    assert [task.job for task in rig.machine.started] == ["j0", "j1", "j2"]


def test_a_lost_trainer_is_followed_by_one_from_the_newest_checkpoint(rig):
    job = rig.queued("j")
    rig.ticks(1)
    (first,) = rig.machine.started
    rig.report(first, "checkpoint", "ckpt-4", step=4, key="jobs/j/attempts/2/checkpoints/000004", sha256="s", metrics={})
    rig.die(first, Outcome(None, 9))
    rig.ticks(2)
    waiting = rig.job(job)
    assert (waiting.status, waiting.lost_attempts) == (Status.QUEUED, 1)
    assert waiting.not_before > rig.clock.now()
    assert rig.texts(job)[-1] == "The worker was killed by signal 9; the job goes on from its checkpoint at step 4"
    rig.ticks(2)
    assert len(rig.machine.started) == 1, "not before its time"
    with rig.db.begin() as tx:
        jobs.swap(tx, SCOPE, job, expect_status={Status.QUEUED}, not_before=0.0)
    rig.ticks(1)
    assert rig.machine.started[1].spec["resume_key"] == "jobs/j/attempts/2/checkpoints/000004"
    assert rig.machine.started[1].attempt == 3


def test_the_last_loss_fails_the_job(make_rig):
    rig = make_rig(max_attempts=1)
    rig.file("file-t")
    job = rig.queued("j")
    rig.ticks(1)
    rig.die(rig.machine.started[0])
    rig.ticks(2)
    failed = rig.job(job)
    assert (failed.status, failed.lost_attempts) == (Status.FAILED, 1)
    assert failed.error is not None
    assert failed.error["code"] == "worker_lost"
    assert failed.released_at is not None
    assert rig.texts(job) == [failed.error["message"]]
    with rig.db.read() as tx:
        assert outbox.pending(tx, Everywhere("test"), job) == ["fine_tuning.job.failed"]


def test_a_lost_validation_is_validated_again(rig):
    job = rig.put("j")
    rig.ticks(1)
    rig.die(rig.machine.started[0])
    rig.ticks(2)
    assert rig.job(job).status is Status.VALIDATING_FILES
    assert rig.texts(job) == [
        "Validating training file: file-t",
        "The worker and its supervisor were killed; the job starts again",
    ]


def test_what_a_restarted_server_finds_alive_goes_on_as_it_is(rig):
    job = rig.queued("j")
    rig.ticks(1)
    before = rig.job(job)
    rig.restart()
    rig.ticks(3)
    assert rig.job(job) == before
    assert (len(rig.machine.started), rig.machine.stopped, rig.machine.swept) == (1, [], [])


def test_what_was_killed_with_its_server_goes_on_and_counts_no_loss(rig):
    job = rig.queued("j")
    rig.ticks(1)
    (first,) = rig.machine.started
    rig.die(first)
    rig.machine.orphans.add(("j", 2))
    rig.restart()
    rig.ticks(1)
    assert rig.machine.swept == ["j"]
    rig.ticks(2)
    assert (rig.job(job).status, rig.job(job).lost_attempts) == (Status.QUEUED, 0)
    rig.ticks(1)
    assert rig.machine.started[1].attempt == first.attempt + 1


@pytest.mark.parametrize("noted", [True, False])
def test_an_attempt_whose_server_died_before_it_noted_the_place(rig, noted):
    class Died(BaseException):
        pass

    def die(_):
        raise Died

    rig.queued("j")
    rig.machine.on_start = die
    if not noted:
        rig.machine.noted = Forgetful()
    with pytest.raises(Died):
        rig.scheduler.tick()
    rig.machine.on_start = None
    assert rig.job("j").handle is None
    rig.restart()
    rig.ticks(4)
    job = rig.job("j")
    assert job.status is Status.RUNNING
    assert job.handle is not None
    # adopted, where its place can be found; swept and started anew, where it cannot
    assert [task.attempt for task in rig.machine.started] == ([2] if noted else [2, 3])
    assert list(rig.machine.living) == [len(rig.machine.started)]
    assert job.lost_attempts == 0


class Forgetful(dict[tuple[str, int], Handle]):
    def __setitem__(self, key: tuple[str, int], handle: Handle) -> None:
        pass


def test_what_ended_while_no_server_ran_counts(rig):
    job = rig.queued("j")
    rig.ticks(1)
    (task,) = rig.machine.started
    data = {"step": 1, "key": "k", "sha256": "s", "metrics": {}, "trained_tokens": 3}
    rig.machine.unsent[("j", 2)] = [Report("finished", "j", 2, "terminal", 1.0, data)]
    rig.die(task)
    rig.restart()
    rig.ticks(2)
    assert rig.job(job).status is Status.SUCCEEDED
    assert len(rig.machine.started) == 1


def test_a_cancel_between_claim_and_placing_leaves_nothing(rig):
    job = rig.queued("j")

    def cancel(task):
        with rig.db.begin() as tx:
            jobs.swap(
                tx, SCOPE, job, expect_status={Status.RUNNING}, status=Status.CANCELLED, desired=Desired.CANCEL, attempt=3
            )

    rig.machine.on_start = cancel
    rig.ticks(1)
    assert rig.machine.stopped == [1]
    rig.ticks(2)
    assert rig.job(job).released_at is not None
    assert rig.machine.living == {}


def test_one_jobs_trouble_is_not_anothers(make_rig):
    rig = make_rig(training_slots=2)
    rig.file("file-t")
    rig.queued("bad", queued_at=1.0)
    rig.queued("good", queued_at=2.0)
    rig.machine.refuses = {"bad"}
    assert rig.scheduler.tick() == CALM_S
    assert [task.job for task in rig.machine.started] == ["good"]
    rig.ticks(2)
    assert (rig.job("bad").status, rig.job("bad").lost_attempts) == (Status.QUEUED, 1)
    assert rig.texts("bad")[-1] == "No worker could be started (the server's log tells why); the job starts again"


@pytest.mark.parametrize("number", [1, 2])
def test_files_deleted_meanwhile_fail_the_job_by_name(make_rig, number):
    rig = make_rig()
    if number == 2:
        rig.file("file-t")
    job = rig.queued("j", validation_file="file-v")
    rig.ticks(1)
    failed = rig.job(job)
    assert failed.status is Status.FAILED
    param = ("training_file", "validation_file")[number - 1]
    assert failed.error is not None
    assert (failed.error["code"], failed.error["param"]) == (f"deleted_{param}", param)
    assert rig.texts(job) == [f"The job failed because the {param.replace('_', ' ')} was deleted"]
    assert rig.machine.started == []


def test_a_base_removed_meanwhile_fails_the_job_with_the_way_out(rig):
    job = rig.put("j", base="gone", validation_file=None)
    rig.ticks(1)
    error = rig.job(job).error
    assert error is not None
    assert error["code"] == "model_not_available"
    assert "tunesmith models add gone" in error["message"]


def test_where_another_server_could_start_the_job_silence_has_a_limit(make_rig):
    rig = make_rig()
    rig.file("file-t")
    rig.settings = rig.settings.model_copy(update={"database_url": "postgresql://host/name"})
    rig.restart()
    rig.queued("j")
    rig.ticks(1)
    assert rig.machine.started[0].silence_limit_s == 10.0


def test_a_finished_attempt_frees_nothing_of_a_newer_one(rig):
    from tunesmith.domain import reconcile

    rig.queued("j")
    rig.ticks(1)
    stale = [
        lambda place: place.release(reconcile.Release("j", 1)),
        lambda place: place.requeue(reconcile.Requeue("j", 1, 1, 0.0, "late")),
        lambda place: place.give_up(reconcile.Fail("j", 1, 1, "c", "late")),
        lambda place: place.claim(reconcile.Start("j", "train", 1)),
        lambda place: place.release(reconcile.Release("none", 1)),
    ]
    before = rig.job("j")
    for call in stale:
        assert call(rig.scheduler._placement) is None
    assert rig.job("j") == before


def test_the_thread_ticks_when_woken_and_stopping_leaves_what_runs(rig):
    started = threading.Event()
    rig.machine.on_start = lambda _: started.set()
    rig.scheduler.start()
    rig.queued("j")
    rig.scheduler.wake()
    assert started.wait(20)
    rig.scheduler.stop()
    assert rig.machine.stopped == []
    assert list(rig.machine.living) == [1]
    assert rig.job("j").status is Status.RUNNING, "it goes on, and the next server finds it"


def test_a_tick_that_fails_is_followed_by_another(rig, monkeypatch):
    looked = threading.Semaphore(0)
    real = rig.machine.alive

    def trouble(handle):
        looked.release()
        if rig.scheduler._state.known and not rig.machine.stopped:
            raise OSError("the machine has a bad moment")
        return real(handle)

    rig.queued("j")
    rig.ticks(1)
    monkeypatch.setattr(rig.machine, "alive", trouble)
    rig.scheduler.start()
    for _ in range(3):
        assert looked.acquire(timeout=120)
        rig.scheduler.wake()
    rig.machine.stopped.append(0)
    rig.scheduler.stop(timeout_s=120)


def test_the_newest_of_many_checkpoints_is_the_one_to_go_on_from(rig):
    job = rig.queued("j")
    with rig.db.begin() as tx:
        for step in (3, 20, 9):
            checkpoints.add(
                tx, SCOPE,
                Checkpoint(f"c{step}", job, DEFAULT_PROJECT, 1.0, step, f"m{step}", f"key-{step}", "s", {}),
            )  # fmt: skip
    rig.ticks(1)
    assert rig.machine.started[0].spec["resume_key"] == "key-20"


@pytest.mark.parametrize(
    ("n_parameters", "setting", "threads"),
    [(2_900_000, None, 1), (49_999_999, 4, 4), (50_000_000, None, 6)],
    ids=["small", "as set", "large"],
)
def test_small_bases_train_on_one_thread(make_rig, monkeypatch, n_parameters, setting, threads):
    from tunesmith.services import specs

    monkeypatch.setattr(specs, "n_cores", lambda: 12)
    rig = make_rig(training_slots=2, training_threads=setting)
    rig.file("file-t")
    with rig.db.begin() as tx:
        models.swap_base(tx, BASES, "nano", n_parameters=n_parameters)
    rig.queued("j")
    rig.scheduler.tick()
    assert rig.machine.started[0].spec["threads"] == threads
