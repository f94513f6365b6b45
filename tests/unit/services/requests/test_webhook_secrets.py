"""Secrets of webhooks: sealed in the store, opened to sign; those of an older release are sealed by the next server."""

from dataclasses import replace
from typing import Any

import pytest

from tunesmith.core.ids import Ids
from tunesmith.core.secrets import FILE, Secrets
from tunesmith.domain.scope import Project
from tunesmith.domain.webhook import Delivery, DeliveryFailed, Endpoint
from tunesmith.notify.webhooks import GuardedWebhooks
from tunesmith.services.webhooks import Webhooks, signed
from tunesmith.store import webhooks

OWN = Project("proj_a", "org-a")
WANTED: Any = {"name": "ci", "url": "https://ci.example.com/x", "event_types": ["fine_tuning.job.failed"]}
CLEAR = ["whsec_" + letter * 43 + "=" for letter in "AB"]


@pytest.fixture
def service(rig: Any) -> Webhooks:
    return _service(rig)


def _service(rig: Any) -> Webhooks:
    secrets = Secrets(rig.folder)
    return Webhooks(db=rig.db, clock=rig.clock, ids=Ids(), sender=GuardedWebhooks(), secrets=secrets)


def kept(rig: Any, endpoint_id: str) -> Endpoint:
    with rig.db.read() as tx:
        found = webhooks.get_endpoint(tx, OWN, endpoint_id)
    assert found is not None
    return found


def headers(rig: Any, endpoint: Endpoint) -> dict[str, str]:
    at = rig.clock.now()
    delivery = Delivery("wh_1", "proj_a", endpoint.id, "evt_1", WANTED["event_types"][0], {}, at, at, at)
    return signed(endpoint, delivery, at)[1]


def test_a_secret_is_sealed_in_the_store_and_the_next_server_signs_with_it(rig: Any, service: Webhooks) -> None:
    made = service.create(OWN, **WANTED)
    rotated = service.rotate(OWN, made.id, keep_old=True)
    assert made.secret.startswith("whsec_")
    row = kept(rig, made.id)
    assert not any(secret in f"{row}" for secret in (made.secret, rotated.secret))
    again = _service(rig).get(OWN, made.id)
    assert (again.secret, again.old_secret) == (rotated.secret, made.secret)
    assert service.page(OWN, after=None, limit=9) == ([again], False)
    assert service.update(OWN, made.id, name="new", url=None, event_types=None).secret == rotated.secret
    assert kept(rig, made.id).secret == row.secret
    assert len(headers(rig, again)["webhook-signature"].split()) == 2


def test_secrets_that_an_older_release_kept_are_sealed_once(rig: Any, service: Webhooks) -> None:
    old = Endpoint("whep_a", "proj_a", 1.0, 1.0, "a", "https://x", WANTED["event_types"], CLEAR[0], CLEAR[1], 2e9)
    with rig.db.begin() as tx:
        webhooks.add_endpoint(tx, OWN, old)
        webhooks.add_endpoint(tx, OWN, replace(old, id="whep_b", old_secret=None, old_secret_until=None))
    before = headers(rig, old)
    assert service.seal() == 2
    assert service.seal() == 0
    assert not any(secret in f"{kept(rig, name)}" for secret in CLEAR for name in ("whep_a", "whep_b"))
    assert (service.get(OWN, "whep_a"), service.get(OWN, "whep_b").old_secret) == (old, None)
    assert headers(rig, service.get(OWN, "whep_a")) == before


def test_without_the_key_nothing_is_signed_until_there_is_a_new_secret(rig: Any, service: Webhooks) -> None:
    made = service.create(OWN, **WANTED)
    (rig.folder / FILE).unlink()
    late = _service(rig)
    with pytest.raises(DeliveryFailed, match=FILE):
        headers(rig, late.get(OWN, made.id))
    fresh = late.rotate(OWN, made.id, keep_old=True)
    assert headers(rig, fresh) == headers(rig, late.get(OWN, made.id))
    assert len(headers(rig, fresh)["webhook-signature"].split()) == 1
