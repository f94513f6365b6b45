"""Models: bases, aliases and what was tuned; deleting what was tuned."""

from collections.abc import Iterable
from typing import Any

import pytest

from tunesmith.core.errors import (
    InvalidRequest,
    ModelNotFound,
    StateConflict,
)
from tunesmith.domain.job import Checkpoint, Job
from tunesmith.domain.model import TunedModel
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.domain.states import Status
from tunesmith.store import checkpoints, events, jobs, models

OWN, OTHER = Project("proj_a", "org-a"), Project("proj_b", "org-b")


def _tune(rig: Any, names: Iterable[str], **changes: Any) -> Job:
    """Give a finished job tuned models of these names, a checkpoint each."""
    job = rig.set(rig.job(), status=Status.SUCCEEDED)
    with rig.db.begin() as tx:
        for step, name in enumerate(names, start=1):
            key = f"jobs/{job.id}/{step}"
            rig.blobs.put(f"{key}/adapter_model.safetensors", [b"x"])
            tuned = TunedModel(name, "proj_a", "org-a", job.id, "nano", float(step), key, "s", {"weights": "w"}, **changes)
            models.add(tx, OWN, tuned)
            checkpoints.add(tx, OWN, Checkpoint(f"ftckpt_{step}", job.id, "proj_a", 1.0, step, name, key, "s", {}))
    return job


def test_models_are_bases_aliases_and_what_was_tuned(rig: Any) -> None:
    _tune(rig, ["ft:nano:tunesmith::a", "ft:nano:tunesmith::b"])
    listed = [(model.name, model.owned_by) for model in rig.models.page(OWN)]
    assert listed == [
        ("nano", "system"),
        ("gpt-4o-mini", "system"),
        ("ft:nano:tunesmith::b", "tunesmith"),
        ("ft:nano:tunesmith::a", "tunesmith"),
    ]
    assert [model.name for model in rig.models.page(OTHER)] == ["nano", "gpt-4o-mini"]
    assert rig.models.get(OWN, "gpt-4o-mini").name == "gpt-4o-mini"
    assert rig.models.get(OWN, "ft:nano:tunesmith::a").created_at == 1.0
    with pytest.raises(ModelNotFound, match="The model 'ft:nano:tunesmith::a' does not exist"):
        rig.models.get(OTHER, "ft:nano:tunesmith::a")


def test_deleting_a_tuned_model_takes_its_bytes_and_its_checkpoint_and_leaves_the_job(rig: Any) -> None:
    job = _tune(rig, ["ft:nano:t::a", "ft:nano:t::b"])
    rig.delete("ft:nano:t::a")
    assert rig.blobs.keys(f"jobs/{job.id}") == [f"jobs/{job.id}/2/adapter_model.safetensors"]
    assert [found.model_name for found in rig.jobs.checkpoints(OWN, job.id)[0]] == ["ft:nano:t::b"]
    assert rig.jobs.get(OWN, job.id).status is Status.SUCCEEDED
    for name in ("ft:nano:t::a", "none"):
        with pytest.raises(ModelNotFound, match=name):
            rig.delete(name)


@pytest.mark.parametrize("name", ["nano", "gpt-4o-mini"])
def test_a_base_is_not_deleted_here_and_the_way_is_told(rig: Any, name: str) -> None:
    with pytest.raises(InvalidRequest, match="tunesmith models remove"):
        rig.delete(name)


def test_tuning_goes_on_from_a_tuned_model_which_then_cannot_be_deleted(rig: Any) -> None:
    maker = _tune(rig, ["ft:nano:t::a"])
    further = rig.job(model="ft:nano:t::a")
    assert (further.base, further.start_adapter) == ("nano", f"jobs/{maker.id}/1")
    with pytest.raises(StateConflict, match=f"{further.id} is tuning 'ft:nano:t::a' further"):
        rig.delete("ft:nano:t::a")
    rig.jobs.cancel(OWN, further.id)
    rig.delete("ft:nano:t::a")


def test_a_running_jobs_checkpoint_cannot_be_deleted(rig: Any) -> None:
    rig.set(_tune(rig, ["ft:nano:t::a"]), status=Status.RUNNING)
    with pytest.raises(StateConflict, match="running"):
        rig.delete("ft:nano:t::a")


def test_a_tuned_model_on_other_weights_is_refused(rig: Any) -> None:
    _tune(rig, ["ft:nano:t::a"])
    with rig.db.begin() as tx:
        models.swap_base(tx, Everywhere("test"), "nano", pins={"weights": "other"})
    with pytest.raises(InvalidRequest, match="tuned on another weights"):
        rig.job(model="ft:nano:t::a")
    with rig.db.read() as tx:
        assert events.page(tx, OWN, "ftjob-none") == ([], False)
        assert [job.status for job in jobs.unfinished(tx, OWN)] == []
