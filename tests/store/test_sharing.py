"""Permissions, the audit log and policies on both databases: what a project sees by them, their order, what goes along."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.audit import Entry
from tunesmith.domain.job import Job
from tunesmith.domain.model import Alias, TunedModel
from tunesmith.domain.permission import Permission
from tunesmith.domain.retention import Policy, Rule
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.store import audit, jobs, models, permissions, retention
from tunesmith.store.session import Database

OWN, OTHER = Project("proj_a", "org-a"), Project("proj_b", "org-b")
ALL = Everywhere("the test looks at everything")
NAME = "ft:nano:t::theirs"


@pytest.fixture
def theirs(db: Database, new_job: Callable[..., Job]) -> TunedModel:
    job = new_job(OTHER)
    model = TunedModel(NAME, "proj_b", "org-b", job.id, "nano", 1.0, "jobs/k", "0" * 64, {})
    with db.begin() as tx:
        jobs.add(tx, OTHER, job)
        models.add(tx, OTHER, model)
        models.add_alias(tx, OTHER, Alias("short", "proj_b", NAME, 1.0))
    return model


def test_a_permission_lets_a_project_use_a_model_and_no_more(db: Database, theirs: TunedModel) -> None:
    with db.begin() as tx:
        assert models.usable(tx, OWN, NAME) is models.find(tx, OWN, NAME) is None
        permissions.add(tx, ALL, Permission("cp_1", "proj_a", NAME, 1.0))
    with db.begin() as tx:
        assert models.usable(tx, OWN, NAME, lock=True) == models.find(tx, OWN, NAME) == theirs
        assert models.tuned(tx, OWN) == models.tuned(tx, OTHER) == [theirs]
        assert models.get(tx, OWN, NAME) is models.delete(tx, OWN, NAME) is models.find(tx, OWN, "short") is None
        assert permissions.delete_one(tx, ALL, "ft:another", "cp_1") is None
        assert permissions.delete_one(tx, ALL, NAME, "cp_1") is not None
        assert models.usable(tx, OWN, NAME) is models.find(tx, OWN, NAME) is None
        assert models.tuned(tx, OWN) == []


def test_permissions_go_with_their_model(db: Database, theirs: TunedModel) -> None:
    with db.begin() as tx:
        permissions.add(tx, ALL, Permission("cp_1", "proj_a", NAME, 1.0))
        models.delete(tx, OTHER, NAME)
        assert permissions.of(tx, ALL, NAME) == []


def test_permissions_and_entries_are_listed_in_both_orders(db: Database, theirs: TunedModel) -> None:
    made = [Permission(f"cp_{n}", f"proj_{n}", NAME, float(n // 2)) for n in range(5)]
    entries = [Entry(f"audit_{n}", "proj_a", float(n // 2), "admin", "POST /x", [str(n)], f"key_{n % 2}") for n in range(5)]
    with db.begin() as tx:
        for permission in made:
            permissions.add(tx, ALL, permission)
        audit.add(tx, OWN, entries)
    lists: list[tuple[Any, Any]] = [
        (made, lambda tx, **asked: permissions.page(tx, ALL, NAME, **asked)),
        (entries, lambda tx, **asked: audit.page(tx, OWN, **asked)),
    ]
    with db.read() as tx:
        for rows, page in lists:
            for order, expected in (("asc", rows), ("desc", rows[::-1])):
                first, more = page(tx, limit=3, order=order)
                assert (first, more) == (expected[:3], True)
                assert page(tx, limit=3, order=order, after=first[-1].id) == (expected[3:], False)
            with pytest.raises(InvalidRequest, match="nobody"):
                page(tx, after="nobody")
        assert [entry.id for entry in audit.page(tx, ALL, key_id="key_1", order="asc")[0]] == ["audit_1", "audit_3"]
        assert [entry.id for entry in audit.page(tx, ALL, since=1.0, until=2.0, order="asc")[0]] == ["audit_2", "audit_3"]
        assert permissions.page(tx, Project("proj_3"), NAME) == ([made[3]], False)
        with pytest.raises(InvalidRequest, match="cp_1"):
            permissions.page(tx, ALL, "ft:another", after="cp_1")


def test_a_policy_takes_the_place_of_the_one_before(db: Database) -> None:
    policy = Policy("proj_a", files=Rule(None, 30), checkpoints=Rule("best"), rollouts=Rule(3, 7))
    with db.begin() as tx:
        for each in (Policy("proj_a"), policy, Policy("proj_b")):
            retention.put(tx, Project(each.project_id), each)
    with db.read() as tx:
        assert retention.every(tx, OWN) == [policy]
        assert retention.every(tx, ALL) == [policy, Policy("proj_b")]
        with pytest.raises(ValueError, match="not of proj_b"):
            retention.put(tx, OTHER, replace(policy))
