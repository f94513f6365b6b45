"""What is let go: by policies, what stays whatever they say, and bytes that no row names."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunesmith.blobs.local import LocalBlobs
from tunesmith.domain.job import Checkpoint
from tunesmith.domain.model import Alias, TunedModel
from tunesmith.domain.permission import Permission
from tunesmith.domain.recording import Recording
from tunesmith.domain.retention import DAY_S, Policy, Rule
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.domain.states import Status
from tunesmith.services.gc import Gc
from tunesmith.store import audit, checkpoints, files, jobs, models, permissions, recordings

OWN, OTHER = Project("proj_a", "org-a"), Project("proj_b", "org-a")
ALL = Everywhere("the test looks at everything")
LAST = Policy("proj_a", checkpoints=Rule("last"))


@pytest.fixture
def gc(rig: Any) -> Gc:
    return gc_of(rig)


def gc_of(rig: Any, **more: Any) -> Gc:
    return Gc(db=rig.db, blobs=rig.blobs, files=rig.files, clock=rig.clock, **more)


def trained(rig: Any, *, n: int = 3, status: Status = Status.SUCCEEDED, scope: Project = OWN, **changes: Any) -> list[str]:
    """Write an ended job with checkpoints of so many steps and their bytes; return their names, the result's last."""
    job = replace(
        rig.job(), id=f"ftjob-{len(rig.jobs.page(scope, limit=100)[0])}-{scope.project_id}",
        project_id=scope.project_id, status=status, attempt=1, released_at=1.0, finished_at=rig.clock.now(), **changes,
    )  # fmt: skip
    names = [f"{job.id}:ckpt-step-{step}" for step in range(1, n)] + [job.id.replace("ftjob", "ft")]
    job = replace(job, fine_tuned_model=names[-1] if status is Status.SUCCEEDED else None)
    with rig.db.begin() as tx:
        jobs.add(tx, ALL, job)
        for step, name in enumerate(names, start=1):
            key = f"jobs/{job.id}/attempts/1/checkpoints/{step:06d}"
            rig.blobs.put(f"{key}/MANIFEST.json", [b"x" * 10])
            row = (job.project_id, "org-a", job.id, "nano", 1.0, key, "", {}, None if step == n else step)
            models.add(tx, ALL, TunedModel(name, *row))
            checkpoints.add(tx, ALL, Checkpoint(f"c-{name}", job.id, job.project_id, 1.0, step, name, key, "", {}))
    return names


def left(rig: Any) -> set[str]:
    with rig.db.read() as tx:
        return {model.name for model in models.tuned(tx, ALL)}


def stored(rig: Any) -> set[str]:
    return {found.key for found in rig.blobs.found("jobs")}


def test_nothing_goes_without_a_policy(rig: Any, gc: Gc) -> None:
    names = trained(rig)
    rig.clock.at += 1000 * DAY_S
    assert gc.look() == gc.collect() == []
    assert left(rig) == set(names)
    assert gc.policy(OWN) == Policy("proj_a")


def test_a_policy_takes_rows_and_bytes_of_its_project_alone_and_says_so_before(rig: Any, gc: Gc) -> None:
    names, theirs = trained(rig), trained(rig, scope=OTHER)
    assert gc.put(OWN, LAST) == gc.policy(OWN) == LAST
    shown = gc.look()
    assert left(rig) == {*names, *theirs}
    assert [(each.kind, each.project_id, each.bytes) for each in shown] == [("checkpoint", "proj_a", 10)] * 2
    assert gc.collect() == shown
    assert left(rig) == {names[-1], *theirs}
    assert len(stored(rig)) == 1 + len(theirs)
    assert gc.collect() == []
    with rig.db.read() as tx:
        [entry] = audit.page(tx, OWN)[0]
    assert (entry.actor, entry.action, set(entry.objects)) == ("system", "retention.deleted", set(names[:2]))


def pinned_by_an_alias(rig: Any, name: str, key: str) -> None:
    with rig.db.begin() as tx:
        models.add_alias(tx, OWN, Alias("mine", "proj_a", name, 1.0))


def pinned_by_a_permission(rig: Any, name: str, key: str) -> None:
    with rig.db.begin() as tx:
        permissions.add(tx, ALL, Permission("cp_1", "proj_b", name, 1.0))


def pinned_by_a_job(rig: Any, name: str, key: str) -> None:
    trained(rig, n=1, status=Status.QUEUED, scope=OTHER, start_adapter=key)


def pinned_by_a_dying_job(rig: Any, name: str, key: str) -> None:
    job = rig.job()
    rig.set(job, status="cancelled", desired="cancel", finished_at=1.0, attempt=1, start_adapter=key)


def pinned_by_a_model(rig: Any, name: str, key: str) -> None:
    trained(rig, n=1, scope=OTHER, start_adapter=key)


@pytest.mark.parametrize(
    "pin", [pinned_by_an_alias, pinned_by_a_permission, pinned_by_a_job, pinned_by_a_dying_job, pinned_by_a_model]
)
def test_what_is_pinned_stays(rig: Any, gc: Gc, pin: Any) -> None:
    first, second, _ = trained(rig)
    with rig.db.read() as tx:
        model = models.get(tx, OWN, first)
    assert model is not None
    pin(rig, first, model.adapter_key)
    gc.put(OWN, LAST)
    gc.collect()
    assert first in left(rig)
    assert second not in left(rig)
    assert rig.blobs.keys(model.adapter_key) != []


@pytest.mark.parametrize("changes", [{"status": Status.PAUSED}, {"status": Status.CANCELLED, "released_at": None}])
def test_a_job_that_may_go_on_or_still_dies_keeps_all(rig: Any, gc: Gc, changes: dict[str, Any]) -> None:
    names = trained(rig)
    with rig.db.read() as tx:
        job_id = models.get(tx, OWN, names[0]).job_id  # type: ignore[union-attr]
    rig.set(rig.jobs.get(OWN, job_id), fine_tuned_model=None, **changes)
    gc.put(OWN, LAST)
    assert gc.collect() == []


def test_files_and_results_go_by_their_age_but_for_those_of_unfinished_jobs(rig: Any, gc: Gc) -> None:
    old, used = rig.upload(), rig.upload()
    job = rig.job(training_file=used.id)
    result = replace(old, id="file-result", key="jobs/x/results.csv", purpose="fine-tune-results")
    rig.blobs.put(result.key, [b"csv"])
    with rig.db.begin() as tx:
        files.add(tx, OWN, result)
    rig.clock.at += 10 * DAY_S
    young = rig.upload()
    gc.put(OWN, Policy("proj_a", files=Rule(None, 5)))
    assert [each.id for each in gc.collect()] == [old.id]
    assert [rig.bytes_of(file) for file in (old, used, young)] == [False, True, True]
    gc.put(OWN, Policy("proj_a", results=Rule(None, 5)))
    assert [(each.kind, each.id, each.bytes) for each in gc.collect()] == [("result_file", "file-result", 3)]
    assert rig.blobs.keys(result.key) == []
    rig.set(rig.jobs.cancel(OWN, job.id), released_at=rig.clock.now())
    gc.put(OWN, Policy("proj_a", files=Rule(None, 5)))
    assert [each.id for each in gc.collect()] == [used.id]


def test_what_was_sampled_goes_step_by_step(rig: Any, gc: Gc) -> None:
    names = trained(rig, n=1, method="reinforcement")
    job_id = names[0].replace("ft-", "ftjob-", 1)
    keys = [f"jobs/{job_id}/attempts/1/rollouts/{step:06d}.jsonl" for step in (1, 2, 3)]
    for key in keys:
        rig.blobs.put(key, [b"{}"])
    gc.put(OWN, Policy("proj_a", rollouts=Rule(2)))
    assert [each.key for each in gc.collect()] == keys[:1]
    gc.put(OWN, Policy("proj_a", rollouts=Rule(None, 3)))
    assert gc.collect() == []
    rig.clock.at += 3 * DAY_S
    assert [each.key for each in gc.collect()] == keys[1:]


def test_bytes_that_no_row_names_go_after_a_day(rig: Any, gc: Gc) -> None:
    names = trained(rig, n=2)
    kept = rig.upload()
    job_id = names[-1].replace("ft-", "ftjob-", 1)
    unfinished = f"jobs/{job_id}/attempts/1/results.csv.abc.unfinished"
    orphans = ["files/nobodys", "jobs/ftjob-gone", f"jobs/{job_id}/attempts/1/checkpoints/000009", unfinished, "uploads/u"]
    for key in orphans:
        rig.blobs.put(key if key.startswith("files") or key == unfinished else f"{key}/1/a", [b"12345"])
    for key in ("comparison.json", "rollouts/000001.jsonl"):
        rig.blobs.put(f"jobs/{job_id}/attempts/1/{key}", [b"{}"])
    running = rig.job()
    rig.blobs.put(f"jobs/{running.id}/attempts/1/checkpoints/000001/x", [b"begun"])
    before = {found.key for prefix in ("files", "jobs", "uploads") for found in rig.blobs.found(prefix)}
    for key in before:
        os.utime(rig.blobs.path(key), (rig.clock.at, rig.clock.at))
    assert gc.collect() == []
    rig.clock.at += DAY_S
    shown = gc.look()
    assert [(each.kind, each.key, each.bytes) for each in shown] == [("orphan", key, 5) for key in sorted(orphans)]
    assert gc.collect() == shown
    after = {found.key for prefix in ("files", "jobs", "uploads") for found in rig.blobs.found(prefix)}
    assert before - after == {key for key in before if key.startswith(tuple(orphans))}
    assert rig.bytes_of(kept)


def test_policies_are_applied_once_an_hour_and_orphans_only_when_asked(rig: Any, gc: Gc) -> None:
    trained(rig)
    rig.blobs.put("files/file-x", [b"1"])
    os.utime(rig.blobs.path("files/file-x"), (1.0, 1.0))
    gc.put(OWN, LAST)
    assert gc.sweep() == 0
    assert len(left(rig)) == 1
    assert rig.blobs.keys("files/file-x") != []
    trained(rig)
    gc.sweep()
    assert len(left(rig)) == 4
    rig.clock.at += 3600
    gc.sweep()
    assert len(left(rig)) == 2


def test_who_has_loaded_a_model_is_told_once_its_bytes_are_gone(rig: Any) -> None:
    told: list[Any] = []
    names = trained(rig)
    gc = gc_of(rig, on_gone=lambda gone: told.extend((model.name, base.name, stored(rig)) for model, base in gone))
    gc.put(OWN, LAST)
    gc.collect()
    assert told == [(name, "nano", stored(rig)) for name in names[1::-1]]
    assert len(stored(rig)) == 1


def test_runs_that_trackers_keep_here_go_by_their_age_and_those_of_nobody_when_asked(rig: Any, tmp_path: Path) -> None:
    place = LocalBlobs(tmp_path)
    gc = gc_of(rig, runs={"wandb": (place, "wandb"), "tensorboard": (place, "boards")})
    ended, other = (name.replace("ft-", "ftjob-", 1) for name in (trained(rig, n=1)[0], trained(rig, n=1)[0]))
    rows = [(ended, 0, "wandb"), (ended, 1, "wandb"), (ended, 2, "tensorboard"), (ended, 3, "mlflow"), (other, 0, "wandb")]
    with rig.db.begin() as tx:
        for job_id, number, kind in rows:
            status: Any = "recording" if job_id == other else "finished"
            recordings.add(tx, OWN, Recording(job_id, number, "proj_a", "org-a", kind, {}, status))
    names = [f"wandb/{ended}", f"wandb/{ended}.1", f"boards/{ended}", f"wandb/{other}", "wandb/.cache", "boards/ftjob-away"]
    for name in (*names, "wandb/ftjob-away"):
        place.put(f"{name}/run/x", [b"1234"])
        os.utime(tmp_path / name / "run" / "x", (rig.clock.at, rig.clock.at))
    gc.put(OWN, Policy("proj_a", runs=Rule(None, 3)))
    rig.clock.at += DAY_S
    away = [("orphan", "wandb/ftjob-away", 4)]
    assert [(each.kind, each.key, each.bytes) for each in gc.look()] == away
    rig.clock.at += 2 * DAY_S
    shown = gc.look()
    assert [(each.kind, each.key, each.bytes) for each in shown] == [("run", key, 4) for key in names[:3]] + away
    assert gc.collect() == shown
    assert sorted(
        f"{path.parent.name}/{path.name}" for kept in ("wandb", "boards") for path in (tmp_path / kept).iterdir()
    ) == (sorted(names[3:]))
    assert gc.collect() == []
