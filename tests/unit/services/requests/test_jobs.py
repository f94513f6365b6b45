"""Jobs: created with every check in the recorded order, ended once."""

from typing import Any

import pytest

from tunesmith.core.errors import (
    InvalidRequest,
    JobNotFound,
    StateConflict,
)
from tunesmith.domain.ports import Handle
from tunesmith.domain.scope import Project
from tunesmith.domain.states import TERMINAL, Desired, Status
from tunesmith.services.bases import ModelNotAvailable
from tunesmith.store import outbox

OWN, OTHER = Project("proj_a", "org-a"), Project("proj_b", "org-b")
HANDLE = {"pid": 11, "start_time": 22, "boot_id": "b"}


def test_a_new_job_is_complete(rig: Any) -> None:
    job = rig.job(model="gpt-4o-mini", suffix="my_run", metadata={"a": "b"})
    assert (job.status, job.model, job.base, job.pins) == (Status.VALIDATING_FILES, "gpt-4o-mini", "nano", {"weights": "w"})
    assert job.method_config == {
        "hyperparameters": {"batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": "auto"}
    }
    assert 0 <= job.seed < 2**31
    assert rig.told(job) == [("info", f"Created fine-tuning job: {job.id}")]
    assert rig.wakes
    assert rig.jobs.get(OWN, job.id) == job
    assert rig.jobs.page(OWN, metadata={"a": "b"}) == ([job], False)
    assert rig.jobs.checkpoints(OWN, job.id) == ([], False)


def test_what_was_said_is_kept_and_the_rest_is_auto(rig: Any) -> None:
    job = rig.job(seed=0, method_config={"hyperparameters": {"n_epochs": 2}})
    assert job.seed == 0
    assert job.method_config["hyperparameters"] == {"batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": 2}


@pytest.mark.parametrize("field", ["training_file", "validation_file"])
def test_files_are_looked_at_before_the_model(rig: Any, field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^invalid {field}: file-none$") as raised:
        rig.job(model="none", **{field: "file-none"})
    assert raised.value.error_param == field
    wrong = rig.upload(purpose="batch")
    with pytest.raises(InvalidRequest, match="was uploaded with purpose 'batch'"):
        rig.job(model="none", **{field: wrong.id})


def test_a_file_of_another_project_or_one_that_expired_is_unknown(rig: Any) -> None:
    foreign, short = rig.upload(OTHER), rig.upload(expires_after_s=3600)
    rig.clock.at += 3600
    for file in (foreign, short):
        with pytest.raises(InvalidRequest, match=f"invalid training_file: {file.id}"):
            rig.job(training_file=file.id)


def test_a_model_that_cannot_be_tuned_is_refused(rig: Any) -> None:
    for name in ("gpt-5", "ft:nano:t::none"):
        with pytest.raises(
            ModelNotAvailable, match=f"Model {name} is not available for fine-tuning or does not exist"
        ) as told:
            rig.job(model=name)
        assert (told.value.error_param, told.value.error_code) == (None, "model_not_available")
    for file in rig.folder.iterdir():
        file.unlink()
    with pytest.raises(ModelNotAvailable, match="cannot be used"):
        rig.job()


def test_every_method_fills_in_what_was_not_said(rig: Any) -> None:
    every = {"batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": 2}
    said: dict[str, Any] = {"method_config": {"hyperparameters": {"n_epochs": 2}}}
    assert rig.job(method="dpo", **said).method_config["hyperparameters"] == {**every, "beta": "auto"}
    rewarded = rig.job(method="reinforcement", validation_file=rig.upload().id, **said)
    assert rewarded.method_config["hyperparameters"] == {
        **every,
        **dict.fromkeys(("compute_multiplier", "eval_interval", "eval_samples"), "auto"),
        "reasoning_effort": "default",
    }


def test_rewards_need_a_validation_file(rig: Any) -> None:
    with pytest.raises(InvalidRequest, match="needs a 'validation_file'") as raised:
        rig.job(method="reinforcement")
    assert (raised.value.error_param, raised.value.error_code) == ("validation_file", "missing_required_parameter")
    with pytest.raises(InvalidRequest, match="invalid training_file: file-none"):
        rig.job(method="reinforcement", training_file="file-none")


@pytest.mark.parametrize("status", [status for status in Status if status not in TERMINAL])
def test_cancel_is_final_in_one_commit_from_every_unfinished_status(rig: Any, status: Status) -> None:
    job = rig.set(rig.job(), status=status, attempt=3, handle=HANDLE)
    cancelled = rig.jobs.cancel(OWN, job.id)
    assert (cancelled.status, cancelled.desired, cancelled.attempt) == (Status.CANCELLED, Desired.CANCEL, 4)
    assert cancelled.finished_at == rig.clock.at
    assert (cancelled.handle, cancelled.released_at) == (HANDLE, None)
    assert rig.executor.stopped == [Handle(**HANDLE)]
    assert rig.told(job)[-1] == ("info", "The job was cancelled")
    with rig.db.read() as tx:
        assert outbox.pending(tx, OWN, job.id) == ["fine_tuning.job.cancelled"]
    again = rig.jobs.cancel(OWN, job.id)
    assert (again.id, again.status, again.attempt) == (job.id, Status.CANCELLED, 4)
    assert len(rig.told(job)) == 2


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED])
def test_a_job_that_has_ended_otherwise_cannot_be_cancelled(rig: Any, status: Status) -> None:
    job = rig.set(rig.job(), status=status)
    with pytest.raises(StateConflict, match=f"{job.id} has already {status}") as raised:
        rig.jobs.cancel(OWN, job.id)
    assert raised.value.status == 400


def test_a_job_of_another_project_is_unknown_to_every_verb(rig: Any) -> None:
    job = rig.job()
    for act in (rig.jobs.get, rig.jobs.cancel, rig.jobs.events, rig.jobs.checkpoints):
        with pytest.raises(JobNotFound, match=f"Could not find fine tune: {job.id}"):
            act(OTHER, job.id)
    assert rig.jobs.page(OTHER) == ([], False)
