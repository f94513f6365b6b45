"""Webhooks through the official client: endpoints, secrets, signatures, retries, redelivery; receivers over real sockets."""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx2
import openai
import pytest

from far.hooks import Receiver, receiving
from laws.thorough import THOROUGH
from tunesmith.core.secrets import Secrets
from tunesmith.domain.scope import Project
from tunesmith.domain.webhook import EVENT_TYPES
from tunesmith.notify.webhooks import GuardedWebhooks
from tunesmith.services.deliveries import Deliveries
from tunesmith.services.webhooks import OVERLAP_S
from tunesmith.store import jobs, outbox

#: Events that go through a receiver which fails at random.
N_EVENTS = 1000 if THOROUGH else 200

OWN = Project("proj_default", "org-default")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving("hooks.test") as server:
        yield server


@pytest.fixture
def slow() -> Iterator[Receiver]:
    with receiving("slow.test") as server:
        yield server


@pytest.fixture
def hooked(fresh: Any, receiver: Receiver) -> Any:
    """Return a server whose webhooks find the receiver, and may."""
    fresh.composed.services.webhooks._sender = _sender(receiver)
    return fresh


def _sender(receiver: Receiver, **more: Any) -> GuardedWebhooks:
    return GuardedWebhooks(hosts=[receiver.host], look_up=lambda host, port: ["127.0.0.1"], **more)


@contextmanager
def delivering(served: Any, sender: GuardedWebhooks, **more: Any) -> Iterator[Deliveries]:
    composed = served.composed
    parts = {"db": composed.db, "clock": composed.services.clock, "ids": composed.services.ids, "sender": sender}
    settings = {"every_s": 0.01, "first_pause_s": 0.02, "chance": random.Random(1), **more}
    deliveries = Deliveries(secrets=Secrets(composed.folder.path), **parts, **settings)
    deliveries.start()
    try:
        yield deliveries
    finally:
        deliveries.stop()


def until(done: Callable[[], Any], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def official(hooked: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=hooked.base_url, api_key="any", max_retries=0) as client:
        yield client


def endpoint_of(client: openai.OpenAI, receiver: Receiver, **more: Any) -> Any:
    wanted: Any = {"name": "mine", "url": receiver.url, "event_types": list(EVENT_TYPES), **more}
    return client.webhooks.create(**wanted)


def log_of(hooked: Any, endpoint: str) -> list[dict[str, Any]]:
    return httpx2.get(f"{hooked.root}/tunesmith/v1/webhook_endpoints/{endpoint}/deliveries?limit=1000").json()["data"]


def cancelled_job(client: openai.OpenAI, rows: Callable[[int], bytes]) -> str:
    file = client.files.create(file=("rows.jsonl", rows(10)), purpose="fine-tune").id
    job = client.fine_tuning.jobs.create(model="tunesmith-nano", training_file=file).id
    client.fine_tuning.jobs.cancel(job)
    return job


def test_an_endpoint_goes_round(official: openai.OpenAI, receiver: Receiver) -> None:
    made = endpoint_of(official, receiver)
    assert made.signing_secret.startswith("whsec_")
    assert made.signing_secret_hint == f"whsec_...{made.signing_secret[-4:]}"
    assert (made.object, made.name, made.url, made.event_types) == (
        "webhook_endpoint", "mine", receiver.url, list(EVENT_TYPES)
    )  # fmt: skip
    kept = official.webhooks.retrieve(made.id)
    assert "signing_secret" not in kept.to_dict()
    other = endpoint_of(official, receiver, name="other")
    assert [each.id for each in official.webhooks.list(limit=1)] == [other.id, made.id]
    changed = official.webhooks.update(made.id, name="new", event_types=["fine_tuning.job.failed"])
    assert (changed.name, changed.url, changed.event_types) == ("new", receiver.url, ["fine_tuning.job.failed"])
    assert official.webhooks.event_types.list().data == list(EVENT_TYPES)
    gone = official.webhooks.delete(made.id)
    assert (gone.object, gone.deleted, gone.id) == ("webhook_endpoint.deleted", True, made.id)
    for call in (official.webhooks.retrieve, official.webhooks.delete, official.webhooks.rotate_secret):
        with pytest.raises(openai.NotFoundError, match=f"No such webhook endpoint: {made.id}"):
            call(made.id)


def test_the_end_of_a_job_is_told_and_unwrapped_by_the_client(
    hooked: Any, official: openai.OpenAI, receiver: Receiver, rows: Callable[[int], bytes]
) -> None:
    made = endpoint_of(official, receiver, event_types=["fine_tuning.job.cancelled"])
    endpoint_of(official, receiver, event_types=["fine_tuning.job.failed"])
    with delivering(hooked, _sender(receiver)):
        job = cancelled_job(official, rows)
        until(lambda: receiver.came)
        until(lambda: log_of(hooked, made.id)[0]["status"] == "delivered")
    [(headers, body)] = receiver.came
    event = official.webhooks.unwrap(body, headers, secret=made.signing_secret)
    assert (event.object, event.type) == ("event", "fine_tuning.job.cancelled")
    assert event.data.id == job  # type: ignore[union-attr]
    assert event.id.startswith("evt_")
    assert headers["host"] == receiver.host
    assert headers["content-type"] == "application/json"
    [line] = log_of(hooked, made.id)
    assert (line["id"], line["tries"], line["status_code"], line["reason"]) == (headers["webhook-id"], 1, 200, None)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        official.webhooks.unwrap(body + b" ", headers, secret=made.signing_secret)


def test_many_events_through_a_receiver_that_fails_at_random(
    hooked: Any, official: openai.OpenAI, receiver: Receiver, rows: Callable[[int], bytes]
) -> None:
    made = endpoint_of(official, receiver)
    job = cancelled_job(official, rows)
    _spread(hooked, job, n=N_EVENTS)
    chance = random.Random(5)
    receiver.answers = lambda _: chance.choice([200, 204, 200, 200, 500, 503, 302, 404])
    # of a thousand some fail a dozen times, and pauses double
    with delivering(hooked, _sender(receiver), first_pause_s=0.002):
        until(lambda: len(receiver.came) > N_EVENTS and _n_untold(hooked) == 0, 120)
        until(lambda: all(line["status"] == "delivered" for line in log_of(hooked, made.id)), 120)
    delivered = set[str]()
    for headers, body in receiver.came:
        event = official.webhooks.unwrap(body, headers, secret=made.signing_secret)
        delivered.add(event.id)
    assert len(receiver.came) > 1.2 * N_EVENTS, "some failed, and were sent again"
    assert len(delivered) == N_EVENTS, "none is lost"
    ids = {headers["webhook-id"] for headers, _ in receiver.came}
    assert len(ids) == N_EVENTS, "an event has one id at every try"


def _spread(hooked: Any, job: str, *, n: int) -> None:
    """Let as many jobs more be cancelled as make n in all."""
    with hooked.composed.db.begin() as tx:
        known = jobs.get(tx, OWN, job)
        for number in range(1, n):
            other = replace(known, id=f"ftjob-{number}")  # type: ignore[type-var]
            jobs.add(tx, OWN, other, [])
            outbox.add(tx, OWN, other.id, "fine_tuning.job.cancelled")


def _n_untold(hooked: Any) -> int:
    with hooked.composed.db.read() as tx:
        return len(outbox.untold(tx, OWN, limit=2000))


def test_what_happened_before_an_endpoint_is_not_told(
    hooked: Any, official: openai.OpenAI, receiver: Receiver, rows: Callable[[int], bytes]
) -> None:
    cancelled_job(official, rows)
    time.sleep(0.01)
    made = endpoint_of(official, receiver)
    with delivering(hooked, _sender(receiver)):
        until(lambda: _n_untold(hooked) == 0)
        later = cancelled_job(official, rows)
        until(lambda: receiver.came)
    assert [line["event"]["data"]["id"] for line in log_of(hooked, made.id)] == [later]


def test_a_new_secret_overlaps_with_the_old_one_for_a_day(
    hooked: Any, official: openai.OpenAI, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = endpoint_of(official, receiver)
    rotated = official.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret != made.signing_secret
    told = official.webhooks.test(made.id, event_type="fine_tuning.job.succeeded")
    assert (told.object, told.success, told.status_code, told.webhook_endpoint_id) == (
        "webhook_endpoint.test", True, 200, made.id
    )  # fmt: skip
    headers, body = receiver.came[-1]
    for secret in (made.signing_secret, rotated.signing_secret):
        assert official.webhooks.unwrap(body, headers, secret=secret).type == "fine_tuning.job.succeeded"
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + OVERLAP_S + 1)
    official.webhooks.test(made.id, event_type="fine_tuning.job.failed")
    headers, body = receiver.came[-1]
    official.webhooks.unwrap(body, headers, secret=rotated.signing_secret)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        official.webhooks.unwrap(body, headers, secret=made.signing_secret)
    last = official.webhooks.rotate_secret(made.id)
    official.webhooks.test(made.id, event_type="fine_tuning.job.failed")
    headers, body = receiver.came[-1]
    with pytest.raises(openai.InvalidWebhookSignatureError):
        official.webhooks.unwrap(body, headers, secret=rotated.signing_secret)
    official.webhooks.unwrap(body, headers, secret=last.signing_secret)


def test_410_disables_an_endpoint_until_it_is_updated(
    hooked: Any, official: openai.OpenAI, receiver: Receiver, rows: Callable[[int], bytes]
) -> None:
    made = endpoint_of(official, receiver)
    receiver.answers = lambda _: 410
    with delivering(hooked, _sender(receiver)):
        cancelled_job(official, rows)
        until(lambda: official.webhooks.retrieve(made.id).to_dict()["status"] == "disabled")
        cancelled_job(official, rows)
        until(lambda: _n_untold(hooked) == 0)
        [line] = log_of(hooked, made.id)
        assert (line["status"], line["status_code"]) == ("failed", 410)
        noted = httpx2.get(f"{hooked.root}/tunesmith/v1/audit?limit=100").json()["data"]
        assert ("webhook_endpoint.disabled", [made.id]) in [(each["action"], each["objects"]) for each in noted]
        with pytest.raises(openai.BadRequestError, match="is disabled: update it first"):
            _redeliver(official, line["id"])
        receiver.answers = lambda _: 200
        enabled = official.webhooks.update(made.id, name="back").to_dict()
        assert (enabled["status"], enabled["status_details"]) == ("enabled", None)
        _redeliver(official, line["id"])
        until(lambda: log_of(hooked, made.id)[0]["status"] == "delivered")
    assert [headers["webhook-id"] for headers, _ in receiver.came] == [line["id"]] * 2


def _redeliver(client: openai.OpenAI, delivery: str) -> Any:
    root = str(client.base_url).rstrip("/").removesuffix("/v1")
    return client.post(f"{root}/tunesmith/v1/webhook_deliveries/{delivery}/redeliver", cast_to=dict[str, Any])


def test_a_delivery_is_given_up_in_the_end_and_may_be_sent_again(
    hooked: Any, official: openai.OpenAI, receiver: Receiver, rows: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = endpoint_of(official, receiver)
    receiver.answers = lambda _: 301
    monkeypatch.setattr("tunesmith.services.deliveries.PATIENCE_S", 0.0)
    with delivering(hooked, _sender(receiver)):
        cancelled_job(official, rows)
        until(lambda: log_of(hooked, made.id) and log_of(hooked, made.id)[0]["status"] != "pending")
        [line] = log_of(hooked, made.id)
        assert (line["status"], line["reason"], line["tries"]) == ("failed", "the endpoint answers 301", 1)
        assert len(receiver.came) == 1, "a redirect is not followed"
        receiver.answers = lambda _: 200
        again = _redeliver(official, line["id"])
        assert (again["status"], again["tries"]) == ("pending", 0)
        until(lambda: log_of(hooked, made.id)[0]["status"] == "delivered")
    assert receiver.came[1][0]["webhook-id"] == line["id"]


def test_a_slow_endpoint_holds_no_other_up(
    hooked: Any, official: openai.OpenAI, receiver: Receiver, slow: Receiver, rows: Callable[[int], bytes]
) -> None:
    slow.slow_s = 1.0
    sender = GuardedWebhooks(hosts=[receiver.host, slow.host], look_up=lambda host, port: ["127.0.0.1"], longest_s=0.3)
    hooked.composed.services.webhooks._sender = sender
    stuck = endpoint_of(official, slow, name="slow")
    quick = endpoint_of(official, receiver)
    job = cancelled_job(official, rows)
    _spread(hooked, job, n=100)
    with delivering(hooked, sender):
        until(
            lambda: log_of(hooked, quick.id)[0:1] and all(each["status"] == "delivered" for each in log_of(hooked, quick.id))
        )
        assert len(log_of(hooked, quick.id)) == 100
    tried = [line for line in log_of(hooked, stuck.id) if line["tries"]]
    assert {line["reason"] for line in tried} == {"the endpoint took longer than 0.3 s"}
    assert len(tried) < 100


@pytest.mark.parametrize(
    ("change", "param", "told"),
    [
        ({"url": "http://example.com/x"}, "url", "delivered by https; example.com"),
        ({"url": "ftp://example.com"}, "url", "by an http or https URL"),
        ({"url": "https://a:b@example.com/"}, "url", "no user and no password"),
        ({"url": "https://example.com:22/"}, "url", "delivered to port 443, not 22"),
        ({"url": "https://[::1"}, "url", "url"),
        ({"url": "https://2130706433/"}, "url", "is not on the public internet"),
        ({"url": "https://example.com/a b"}, "url", "no blanks and no control characters"),
        ({"url": "https://example.com/\r\nx: y"}, "url", "no blanks and no control characters"),
        ({"url": "https://example.com/" + "x" * 2048}, "url", "must have at most 2048 characters, not 2068"),
        ({"event_types": []}, "event_types", "event_types"),
        ({"event_types": ["batch.completed"]}, "event_types", "'batch.completed' is no event that happens here"),
        ({"name": ""}, "name", "name"),
        ({"secret": "x"}, "secret", "secret"),
    ],
)
def test_a_wrong_endpoint_names_its_field(hooked: Any, change: dict[str, Any], param: str, told: str) -> None:
    right = {"name": "a", "url": "https://example.com/hook", "event_types": ["fine_tuning.job.failed"]}
    answer = httpx2.post(f"{hooked.base_url}/webhook_endpoints", json={**right, **change})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert told in error["message"]


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1"])
def test_a_name_that_leads_inside_is_not_called(hooked: Any, official: openai.OpenAI, address: str) -> None:
    hooked.composed.services.webhooks._sender = GuardedWebhooks(look_up=lambda host, port: ["8.8.8.8", address])
    made = official.webhooks.create(name="a", url="https://rebind.test/x", event_types=["fine_tuning.job.failed"])
    with pytest.raises(openai.BadRequestError, match=r"rebind\.test is not on the public internet"):
        official.webhooks.test(made.id, event_type="fine_tuning.job.failed")


def test_a_project_has_so_many_endpoints_and_no_more(
    official: openai.OpenAI, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.services.webhooks.N_MAX_ENDPOINTS", 1)
    endpoint_of(official, receiver)
    with pytest.raises(openai.BadRequestError, match="at most 1 webhook endpoints"):
        endpoint_of(official, receiver)


def test_the_command_line_does_all_of_it(
    hooked: Any, official: openai.OpenAI, receiver: Receiver, rows: Callable[[int], bytes]
) -> None:
    def run(*said: str) -> list[str]:
        told = _command(hooked, *said)
        assert told.returncode == 0, told.stderr
        return told.stdout.splitlines()

    first, second = run("add", "ci", receiver.url, "--event", "fine_tuning.job.cancelled")
    endpoint = first.split()[0]
    secret = second.rpartition(" ")[2]
    assert official.webhooks.retrieve(endpoint).event_types == ["fine_tuning.job.cancelled"]
    assert run("list") == ["\t".join([endpoint, "ci", receiver.url, "enabled", "fine_tuning.job.cancelled"])]
    assert run("test", endpoint) == [f"{endpoint} answers 200."]
    headers, body = receiver.came[-1]
    official.webhooks.unwrap(body, headers, secret=secret)
    with delivering(hooked, _sender(receiver)):
        job = cancelled_job(official, rows)
        until(lambda: log_of(hooked, endpoint) and log_of(hooked, endpoint)[0]["status"] == "delivered")
        [line] = run("deliveries", endpoint)
        delivery, *cells = line.split("\t")
        assert cells == ["fine_tuning.job.cancelled", job, "delivered", "1 try", ""]
        assert run("redeliver", delivery) == [f"{delivery} is sent again."]
        until(lambda: len(receiver.came) == 3)
    assert run("rotate", endpoint)[0].rpartition(" ")[2].startswith("whsec_")
    assert run("remove", endpoint) == [f"{endpoint} is removed."]
    assert run("list") == []
    refused = _command(hooked, "remove", endpoint)
    assert (refused.returncode, refused.stderr) == (1, f"tunesmith: No such webhook endpoint: {endpoint}\n")


def _command(hooked: Any, *said: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tunesmith", "webhooks", *said, "--base-url", hooked.base_url]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
