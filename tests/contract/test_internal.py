"""The supervisors' door: what it asks of a request and how it refuses, over a real service and database."""

import json
import random
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from near.database import make_database
from tunesmith.api.internal import create_internal_app
from tunesmith.blobs.local import LocalBlobs
from tunesmith.core.clock import SystemClock
from tunesmith.core.errors import Unavailable
from tunesmith.core.ids import Ids
from tunesmith.core.settings import Settings
from tunesmith.domain.job import Job
from tunesmith.domain.scope import DEFAULT_ORGANIZATION, DEFAULT_PROJECT, Project
from tunesmith.domain.states import Desired, Status
from tunesmith.graders.base import GradingFailed, Question, Tools, Verdict
from tunesmith.services.attempts import Attempts, token_sha256
from tunesmith.store import events, jobs
from tunesmith.store.session import Database

SCOPE = Project(DEFAULT_PROJECT)
REPORT = {
    "version": 1, "kind": "metrics", "job": "ftjob-x", "attempt": 1, "idempotency_key": "s1", "created_at": 1.0,
    "data": {"step": 1, "total_steps": 2, "train_loss": 1.0},
}  # fmt: skip
QUESTION = {"model": "m", "messages": [], "schema_name": "grade", "schema": {}, "sampling": {}}
JOB = Job(
    id="ftjob-x", project_id=DEFAULT_PROJECT, organization_id=DEFAULT_ORGANIZATION, model="m", base="m", start_adapter=None,
    training_file="f", validation_file=None, suffix=None, seed=1, method="supervised", method_config={}, resolved=None,
    integrations=[], metadata=None, created_at=1.0, status=Status.RUNNING, attempt=1, token_sha256=token_sha256("secret"),
)  # fmt: skip


@pytest.fixture
def database(tmp_path: Path):
    made = Database(make_database(tmp_path / "t.db"), clock=SystemClock(), ids=Ids(random.Random(1)))
    with made.begin() as tx:
        jobs.add(tx, SCOPE, replace(JOB, desired=Desired.PAUSE))
    yield made
    made.close()


@pytest.fixture
def tools():
    """What graders ask; the last one is taken."""
    return [Tools(SystemClock())]


@pytest.fixture
def post(tmp_path: Path, database: Database, tools: list[Tools]):
    clock, ids = SystemClock(), Ids(random.Random(2))
    attempts = Attempts(
        db=database, blobs=LocalBlobs(tmp_path / "b"), clock=clock, ids=ids, settings=Settings(), on_change=lambda: None
    )
    transport = httpx2.ASGITransport(create_internal_app(attempts, lambda _: tools[-1]))

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
    for question in ("heartbeat", "reports", "judge", "similarity"):
        answer = await post(path.replace("heartbeat", question), token=token, json={"version": 1, "reports": []})
        assert answer.status_code == status


class Away:
    """A judge that is not there now."""

    async def ask(self, _: Question) -> Verdict:
        try:
            raise Unavailable("The sampler is about to end.")
        except Unavailable as error:
            raise GradingFailed("model_grader_server_error", "cannot answer") from error


@pytest.mark.anyio
async def test_a_model_that_cannot_answer_now_is_asked_again_later(post, tools):
    tools.append(Tools(SystemClock(), judges=Away()))
    answer = await post("ftjob-x/1/judge", json={"version": 1, "question": QUESTION})
    assert (answer.status_code, answer.json()) == (503, {"error": "The sampler is about to end."})


@pytest.mark.anyio
@pytest.mark.parametrize(("path", "body"), [("judge", {"question": QUESTION}), ("similarity", {"left": "a", "right": "b"})])
async def test_what_a_server_does_not_have_is_a_failure_of_the_grade(post, path, body):
    answer = await post(f"ftjob-x/1/{path}", json={"version": 1, **body})
    assert answer.status_code == 200
    failed = answer.json()["failed"]
    assert (failed["flag"], failed["verdict"]) == ("model_grader_server_error", None)
    assert failed["details"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("judge", {}),
        ("judge", {"question": None}),
        ("judge", {"question": {**QUESTION, "mood": "kind"}}),
        ("judge", {"question": {"model": "m"}}),
        ("similarity", {"left": "a"}),
    ],
)
async def test_a_question_that_is_not_understood_is_named(post, path, body):
    answer = await post(f"ftjob-x/1/{path}", json={"version": 1, **body})
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.anyio
async def test_what_a_strangers_code_said_is_told_though_it_is_no_unicode(post, database):
    odd = {"level": "warn", "message": "it raised \ud800 and \x00"}
    failed = {"code": "grader_failed", "param": None, "message": "it raised \udfff"}
    reports = [
        {**REPORT, "kind": "message", "idempotency_key": "note", "data": odd},
        {**REPORT, "kind": "failed", "idempotency_key": "terminal", "data": failed},
    ]
    answer = await post("ftjob-x/1/reports", content=json.dumps({"version": 1, "reports": reports}))
    assert answer.status_code == 200
    assert messages(database) == ["it raised \\udfff", "it raised \\ud800 and \\x00"]
    with database.read() as tx:
        assert jobs.get(tx, SCOPE, "ftjob-x").error == {**failed, "message": "it raised \\udfff"}


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
