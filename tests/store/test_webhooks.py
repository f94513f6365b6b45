"""Queries on webhooks: endpoints in order, what is due, given up and forgotten, and what the outbox still has to tell."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tunesmith.domain.scope import Everywhere, Project
from tunesmith.domain.webhook import Delivery, Endpoint
from tunesmith.store import jobs, outbox, webhooks
from tunesmith.store.session import Database

OWN, OTHER = Project("proj_a", "org-a"), Project("proj_b", "org-b")
ALL = Everywhere("a test looks at everything")
TYPE = "fine_tuning.job.failed"


def _endpoint(name: str, **fields: Any) -> Endpoint:
    return replace(Endpoint(f"whep_{name}", "proj_a", 1.0, 1.0, name, "https://x", [TYPE], "whsec_AA=="), **fields)


def _delivery(name: str, endpoint: str = "whep_a", **fields: Any) -> Delivery:
    known = Delivery(f"wh_{name}", "proj_a", endpoint, f"evt_{name}", TYPE, {"id": "ftjob-x"}, 1.0, 1.0, 1.0)
    return replace(known, **fields)


def test_endpoints_come_newest_first_and_are_changed_and_deleted(db: Database) -> None:
    made = [_endpoint(name, created_at=at) for name, at in (("a", 1.0), ("b", 3.0), ("c", 2.0))]
    with db.begin() as tx:
        for endpoint in made:
            webhooks.add_endpoint(tx, OWN, endpoint)
        assert [each.id for each in webhooks.endpoints_page(tx, OWN, limit=2)[0]] == ["whep_b", "whep_c"]
        assert webhooks.endpoints_page(tx, OWN, after="whep_c", limit=2) == ([made[0]], False)
        assert webhooks.count_endpoints(tx, OWN) == 3
        assert webhooks.count_endpoints(tx, OTHER) == 0
        changed = webhooks.change_endpoint(tx, OWN, "whep_a", name="x", disabled_reason="gone")
        assert changed == replace(made[0], name="x", disabled_reason="gone")
        assert [each.id for each in webhooks.enabled(tx, ALL)] == ["whep_b", "whep_c"]
        assert webhooks.delete_endpoint(tx, OWN, "whep_b")
        assert not webhooks.delete_endpoint(tx, OWN, "whep_b")
        assert not webhooks.delete_endpoint(tx, OTHER, "whep_c")


def test_what_is_due_is_tried_longest_due_first(db: Database, watch: Any) -> None:
    with db.begin() as tx:
        for name in ("a", "b"):
            webhooks.add_endpoint(tx, OWN, _endpoint(name))
        for delivery in (
            _delivery("1", next_try_at=watch.at),
            _delivery("2", next_try_at=watch.at - 5),
            _delivery("3", next_try_at=watch.at + 1),
            _delivery("4", status="delivered"),
            _delivery("5", "whep_b", next_try_at=watch.at - 9),
        ):
            webhooks.add_delivery(tx, OWN, delivery)
        assert [each.id for each in webhooks.due(tx, ALL, limit=9)] == ["wh_5", "wh_2", "wh_1"]
        assert [each.id for each in webhooks.due(tx, ALL, limit=9, without={"whep_b"})] == ["wh_2", "wh_1"]
        webhooks.give_up(tx, ALL, "whep_a", "it is gone")
        assert [each.id for each in webhooks.due(tx, ALL, limit=9)] == ["wh_5"]
        assert webhooks.get_delivery(tx, OWN, "wh_3") == _delivery(
            "3", next_try_at=watch.at + 1, status="failed", reason="it is gone"
        )
        log, has_more = webhooks.deliveries_page(tx, OWN, "whep_a", limit=3)
        assert [each.id for each in log] == ["wh_4", "wh_3", "wh_2"]
        assert has_more
        assert webhooks.sweep(tx, ALL, before=2.0, limit=9) == 4
        assert webhooks.delete_endpoint(tx, OWN, "whep_b")
        assert webhooks.get_delivery(tx, OWN, "wh_5") is None


def test_the_outbox_tells_each_event_once(db: Database, new_job: Callable[..., Any]) -> None:
    with db.begin() as tx:
        job = new_job()
        jobs.add(tx, OWN, job, [])
        outbox.add(tx, OWN, job.id, TYPE)
        [told] = outbox.untold(tx, ALL, limit=9)
        assert (told.job_id, told.project_id, told.type) == (job.id, "proj_a", TYPE)
        assert outbox.untold(tx, OTHER, limit=9) == []
        outbox.tell(tx, ALL, told.id)
        assert outbox.untold(tx, ALL, limit=9) == []
