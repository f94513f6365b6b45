"""Checkpoints, metrics, the outbox: what belongs to a job."""

from collections.abc import Callable

import pytest
from sqlalchemy.exc import IntegrityError

from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.job import Checkpoint, Job
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.store import checkpoints, jobs, metrics, outbox
from tunesmith.store.session import Database

OWN, OTHER = Project("proj_a", "org-a"), Project("proj_b", "org-b")


@pytest.fixture
def job(db: Database, new_job: Callable[..., Job]) -> Job:
    made = new_job()
    with db.begin() as tx:
        return jobs.add(tx, OWN, made)


def _checkpoint(job: Job, step: int) -> Checkpoint:
    return Checkpoint(
        id=f"ftckpt_{step}",
        job_id=job.id,
        project_id=job.project_id,
        created_at=float(step),
        step=step,
        model_name=f"ft:nano:t::tail:ckpt-step-{step}",
        key=f"jobs/{job.id}/attempts/1/checkpoints/{step:06d}",
        sha256="f" * 64,
        metrics={"step": step, "train_loss": 0.25},
    )


def test_checkpoints_are_listed_highest_step_first(db: Database, job: Job) -> None:
    made = [_checkpoint(job, step) for step in (2, 6, 4)]
    with db.begin() as tx:
        for checkpoint in made:
            checkpoints.add(tx, OWN, checkpoint)
        assert checkpoints.get(tx, OWN, "ftckpt_4") == made[2]
        assert checkpoints.get(tx, OTHER, "ftckpt_4") is None
        first, more = checkpoints.page(tx, OWN, job.id, limit=2)
        rest, no_more = checkpoints.page(tx, OWN, job.id, after="ftckpt_4")
        assert checkpoints.page(tx, OTHER, job.id) == ([], False)
    assert ([checkpoint.step for checkpoint in first], more) == ([6, 4], True)
    assert ([checkpoint.step for checkpoint in rest], no_more) == ([2], False)


def test_a_dropped_checkpoint_is_listed_no_more_but_known(db: Database, job: Job) -> None:
    with db.begin() as tx:
        checkpoints.add(tx, OWN, _checkpoint(job, 1))
        checkpoints.drop(tx, OTHER, "ftckpt_1")
        assert len(checkpoints.page(tx, OWN, job.id)[0]) == 1
        checkpoints.drop(tx, OWN, "ftckpt_1")
        assert checkpoints.page(tx, OWN, job.id) == ([], False)
        dropped = checkpoints.get(tx, OWN, "ftckpt_1")
    assert dropped is not None
    assert not dropped.kept


def test_a_page_of_checkpoints_goes_on_from_one_of_the_job(db: Database, job: Job, new_job: Callable[..., Job]) -> None:
    with db.begin() as tx:
        other = jobs.add(tx, OWN, new_job())
        checkpoints.add(tx, OWN, _checkpoint(other, 3))
    for after in ("ftckpt_3", "ftckpt_none"):
        with pytest.raises(InvalidRequest, match=after), db.read() as tx:
            checkpoints.page(tx, OWN, job.id, after=after)


def test_a_checkpoint_belongs_to_its_project_and_to_a_job_that_exists(db: Database, job: Job) -> None:
    with pytest.raises(ValueError, match="is of proj_a, not of proj_b"), db.begin() as tx:
        checkpoints.add(tx, OTHER, _checkpoint(job, 1))
    with pytest.raises(IntegrityError), db.begin() as tx:
        checkpoints.add(tx, Everywhere("test"), Checkpoint("c", "ftjob-none", "proj_a", 1.0, 1, "m", "k", "s", {}))


def test_a_step_taken_again_replaces_its_metrics(db: Database, job: Job) -> None:
    with db.begin() as tx:
        metrics.add(tx, OWN, job.id, 2, {"train_loss": 0.5})
        metrics.add(tx, OWN, job.id, 1, {"train_loss": 0.75, "valid_loss": None})
        metrics.add(tx, OWN, job.id, 2, {"train_loss": 0.25})
        metrics.add(tx, OTHER, job.id, 3, {"train_loss": 9.0})
        assert metrics.all(tx, OWN, job.id) == [(1, {"train_loss": 0.75, "valid_loss": None}), (2, {"train_loss": 0.25})]
        assert metrics.all(tx, OTHER, job.id) == []


def test_the_outbox_takes_each_news_of_a_job_once(db: Database, job: Job) -> None:
    with db.begin() as tx:
        outbox.add(tx, OWN, job.id, "fine_tuning.job.cancelled")
        outbox.add(tx, OTHER, job.id, "fine_tuning.job.failed")
        assert outbox.pending(tx, OWN, job.id) == ["fine_tuning.job.cancelled"]
        assert outbox.pending(tx, OTHER, job.id) == []
    with pytest.raises(IntegrityError), db.begin() as tx:
        outbox.add(tx, OWN, job.id, "fine_tuning.job.cancelled")
