"""Queries on models: bases for everyone, tuned models for their project."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from tunesmith.domain.job import Job
from tunesmith.domain.model import Alias, Base, TunedModel
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.store import jobs, models
from tunesmith.store.session import Database

OWN, OTHER = Project("proj_a", "org-a"), Project("proj_b", "org-b")
SERVER = Everywhere("bases belong to the server")


def _base(name: str, **fields: Any) -> Base:
    base = Base(
        name=name,
        kind="folder",
        source="./x",
        path="/models/x",
        created_at=1.0,
        architecture="LlamaForCausalLM",
        context_length=1024,
        n_parameters=70 * 10**9,
        weights_bytes=140 * 10**9,
        pins={"weights": "a", "tokenizer": "b", "template": "c"},
        aliases=["gpt-4o-mini"],
        downloaded_bytes=5,
        total_bytes=2**40,
    )
    return replace(base, **fields)


@pytest.fixture
def job(db: Database, new_job: Callable[..., Job]) -> Job:
    made = new_job()
    with db.begin() as tx:
        return jobs.add(tx, OWN, made)


def _tuned(job: Job, name: str, **fields: Any) -> TunedModel:
    model = TunedModel(
        name, job.project_id, job.organization_id, job.id, "nano", 1.0, f"jobs/{job.id}/x", "s" * 64, {"weights": "a"}
    )
    return replace(model, **fields)


def test_a_base_is_found_by_name_and_by_alias_from_everywhere(db: Database) -> None:
    base = _base("nano")
    with db.begin() as tx:
        models.add_base(tx, SERVER, base)
        models.add_base(tx, SERVER, _base("gpt-4o", aliases=["nano"], created_at=0.5))
        for scope in (OWN, OTHER, SERVER):
            assert models.get_base(tx, scope, "nano") == base
            assert models.get_base(tx, scope, "gpt-4o-mini") == base
            assert models.get_base(tx, scope, "none") is None
        assert [found.name for found in models.bases(tx, OWN)] == ["gpt-4o", "nano"]


def test_a_base_changes_only_from_an_expected_status(db: Database) -> None:
    with db.begin() as tx:
        models.add_base(tx, SERVER, _base("nano", status="loading"))
        assert models.swap_base(tx, SERVER, "nano", expect_status={"ready"}, status="failed") is None
        moved = models.swap_base(tx, SERVER, "nano", expect_status={"loading"}, status="ready", aliases=["a", "b"])
        assert moved == _base("nano", aliases=["a", "b"])
        assert models.swap_base(tx, SERVER, "nano", detail="d") == replace(moved, detail="d")
        assert models.swap_base(tx, SERVER, "none", detail="d") is None
        assert models.delete_base(tx, SERVER, "nano")
        assert not models.delete_base(tx, SERVER, "nano")


def test_a_tuned_model_comes_back_as_it_went_in_to_its_project_alone(db: Database, job: Job) -> None:
    long = "ft:" + "b" * 255 + ":slug:" + "s" * 64 + ":abcdefgh:ckpt-step-1000000"
    first, second = _tuned(job, "ft:nano:t::a"), _tuned(job, long, step=7, created_at=2.0)
    with db.begin() as tx:
        models.add(tx, OWN, first)
        models.add(tx, OWN, second)
        assert models.get(tx, OWN, long) == second
        assert models.tuned(tx, OWN) == [second, first]
        assert models.get(tx, OTHER, long) is None
        assert models.tuned(tx, OTHER) == []
        assert models.delete(tx, OTHER, long) is None
        assert models.delete(tx, OWN, long) == second
        assert models.delete(tx, OWN, long) is None


def test_a_name_is_given_once_and_in_the_own_project(db: Database, job: Job) -> None:
    with pytest.raises(ValueError, match="is of proj_a, not of proj_b"), db.begin() as tx:
        models.add(tx, OTHER, _tuned(job, "ft:x"))
    with db.begin() as tx:
        models.add(tx, OWN, _tuned(job, "ft:x"))
    with pytest.raises(IntegrityError), db.begin() as tx:
        models.add(tx, OWN, _tuned(job, "ft:x"))


def test_an_alias_is_its_projects_and_goes_with_its_model(db: Database, job: Job) -> None:
    alias = Alias("ft:gpt-4o:org::x", "proj_a", "ft:nano:t::a", 1.0)
    with pytest.raises(ValueError, match="is of proj_a, not of proj_b"), db.begin() as tx:
        models.add_alias(tx, OTHER, alias)
    first, second = _tuned(job, "ft:nano:t::a"), _tuned(job, "ft:nano:t::b")
    with db.begin() as tx:
        for model in (first, second):
            models.add(tx, OWN, model)
        models.add_alias(tx, OWN, alias)
        assert models.find(tx, OWN, alias.name) == first
        assert models.find(tx, OTHER, alias.name) is None
        models.add_alias(tx, OWN, replace(alias, model=second.name))
        assert models.find(tx, OWN, alias.name) == second
        assert models.find(tx, OWN, second.name) == second
        assert [found.model for found in models.aliases(tx, OWN)] == [second.name]
        assert models.aliases(tx, OWN, "other") == models.aliases(tx, OTHER) == []
        models.delete(tx, OWN, second.name)
        assert models.aliases(tx, OWN) == []
        assert models.delete_alias(tx, OWN, alias.name) is None
