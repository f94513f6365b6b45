"""The supervisors' door: what it asks of a request and how it refuses, over a real service and database."""

import random
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from tunesmith.api.internal import create_internal_app
from tunesmith.blobs.local import LocalBlobs
from tunesmith.core.clock import SystemClock
from tunesmith.core.ids import Ids
from tunesmith.core.settings import Settings
from tunesmith.domain.job import Job
from tunesmith.domain.scope import DEFAULT_ORGANIZATION, DEFAULT_PROJECT, Project
from tunesmith.domain.states import Desired, Status
from tunesmith.services.attempts import Attempts, token_sha256
from tunesmith.store import events, jobs
from tunesmith.store.session import Database

SCOPE = Project(DEFAULT_PROJECT)
REPORT = {
    "version": 1, "kind": "metrics", "job": "ftjob-x", "attempt": 1, "idempotency_key": "s1", "created_at": 1.0,
    "data": {"step": 1, "total_steps": 2, "train_loss": 1.0},
}  # fmt: skip
JOB = Job(
    id="ftjob-x", project_id=DEFAULT_PROJECT, organization_id=DEFAULT_ORGANIZATION, model="m", base="m", start_adapter=None,
    training_file="f", validation_file=None, suffix=None, seed=1, method="supervised", method_config={}, resolved=None,
    integrations=[], metadata=None, created_at=1.0, status=Status.RUNNING, attempt=1, token_sha256=token_sha256("secret"),
)  # fmt: skip


@pytest.fixture
def database(tmp_path: Path):
    made = Database(f"sqlite:///{tmp_path / 't.db'}", clock=SystemClock(), ids=Ids(random.Random(1)))
    made.migrate()
    with made.begin() as tx:
        jobs.add(tx, SCOPE, replace(JOB, desired=Desired.PAUSE))
    yield made
    made.close()


@pytest.fixture
def post(tmp_path: Path, database: Database):
    clock, ids = SystemClock(), Ids(random.Random(2))
    attempts = Attempts(
        db=database, blobs=LocalBlobs(tmp_path / "b"), clock=clock, ids=ids, settings=Settings(), on_change=lambda: None
    )
    transport = httpx2.ASGITransport(create_internal_app(attempts))

    async def send(path, *, token="secret", **body):
        async with httpx2.AsyncClient(transport=transport, base_url="http://tunesmith") as client:
            headers = {"Authorization": f"Bearer {token}"}
            return await client.post(f"/internal/v1/attempts/{path}", headers=headers, **body)

    return send


def messages(database: Database) -> list[str]:
    with database.read() as tx:
        return [event.message for event in events.page(tx, SCOPE, "ftjob-x")[0]]


@pytest.mark.anyio
async def test_reports_and_heartbeats_answer_with_the_owners_wish(post, database):
    answer = await post("ftjob-x/1/reports", json={"version": 1, "reports": [REPORT]})
    assert (answer.status_code, answer.json()) == (200, {"version": 1, "desired": "pause"})
    assert messages(database) == ["Step 1/2: training loss=1.00"]
    answer = await post("ftjob-x/1/heartbeat", json={"version": 1})
    assert (answer.status_code, answer.json()) == (200, {"version": 1, "desired": "pause"})


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "token", "status"),
    [
        ("ftjob-x/2/heartbeat", "secret", 410),
        ("ftjob-x/0/heartbeat", "secret", 410),
        ("ftjob-unknown/1/heartbeat", "secret", 410),
        ("ftjob-x/1/heartbeat", "guess", 403),
        ("ftjob-x/1/heartbeat", "", 403),
        ("ftjob-x/one/heartbeat", "secret", 404),
    ],
)
async def test_who_is_refused(post, path, token, status):
    answer = await post(path, token=token, json={"version": 1})
    assert answer.status_code == status


@pytest.mark.anyio
@pytest.mark.parametrize(
    "body",
    [
        {"json": {"version": 2, "reports": []}},
        {"json": []},
        {"content": b"not json"},
        {"json": {"version": 1}},
        {"json": {"version": 1, "reports": [{**REPORT, "version": 0}]}},
        {"json": {"version": 1, "reports": [{"version": 1, "kind": "metrics"}]}},
        {"json": {"version": 1, "reports": [{**REPORT, "data": {}}]}},
    ],
)
async def test_a_message_that_is_not_understood_is_named_and_changes_nothing(post, database, body):
    answer = await post("ftjob-x/1/reports", **body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert messages(database) == []
