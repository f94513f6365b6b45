"""Every route of the app with every kind of key: another project's objects are a 404, nothing of theirs told or changed.

A new route fails here until it stands in the table.
"""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import select

from tunesmith.api.app import create_routes
from tunesmith.domain.completion import Completion
from tunesmith.domain.job import Checkpoint, Job
from tunesmith.domain.model import Alias, TunedModel
from tunesmith.domain.response import StoredResponse
from tunesmith.domain.scope import Everywhere
from tunesmith.domain.states import Status
from tunesmith.domain.webhook import Delivery
from tunesmith.store import checkpoints, completions, jobs, models, responses, webhooks
from tunesmith.store.tables import metadata

NANO = "tunesmith-nano"
#: Stands in everything of the project that is not the caller's, and may come back to nobody else.
MARK = "zebra"
TUNED, ALIAS = f"ft:{NANO}:tunesmith:{MARK}:AbCdEfGh", f"{MARK}-latest"
DONE, COMPLETION, RESPONSE, DELIVERY = "ftjob-done", "chatcmpl-theirs", "resp_theirs", "wh_theirs"
SAID = [{"role": "user", "content": "Hello"}]
GRADER = {"type": "string_check", "name": "g", "input": "a", "reference": "a", "operation": "eq"}
HOOK = {"name": MARK, "url": "https://hooks.example.com/x", "event_types": ["fine_tuning.job.failed"]}

REFUSED = ("none", "garbage", "revoked", "expired", "archived")
KINDS = (*REFUSED, "reader", "other", "member", "admin")


@dataclass(frozen=True)
class Case:
    """A route: who may ask, what is sent, and what another project's member is answered."""

    who: str = "project"
    #: What is sent; `own` says that it or the path names an object of the project's.
    body: Any = None
    own: bool = False
    foreign: int = 404
    #: What its own member is answered to a GET.
    status: int = 200
    query: str = ""
    #: Not sent by those who may, for it would compute.
    computes: bool = False


OPEN, ANY, OWN, ADMIN = Case("open"), Case(), Case(own=True), Case("admin")
ROUTES: dict[str, Case] = {
    "GET /openapi.json": ANY,
    "GET /healthz": OPEN,
    "GET /readyz": OPEN,
    "GET /metrics": ADMIN,
    "POST /v1/files": ANY,
    "GET /v1/files": ANY,
    "GET /v1/files/{file_id}": OWN,
    "GET /v1/files/{file_id}/content": OWN,
    "POST /v1/uploads": ANY,
    "POST /v1/uploads/{upload_id}/parts": OWN,
    "POST /v1/uploads/{upload_id}/complete": Case(own=True, body={"part_ids": ["{part_id}"]}),
    "POST /v1/uploads/{upload_id}/cancel": OWN,
    "POST /v1/fine_tuning/jobs": Case(own=True, body={"model": NANO, "training_file": "{file_id}"}, foreign=400),
    "POST /tunesmith/v1/fine_tuning/preflight": Case(
        own=True, body={"model": NANO, "training_file": "{file_id}"}, foreign=400, computes=True
    ),
    "GET /v1/fine_tuning/jobs": ANY,
    "GET /tunesmith/v1/fine_tuning/jobs/{job_id}": OWN,
    "GET /tunesmith/v1/fine_tuning/jobs/{job_id}/metrics": OWN,
    "GET /v1/fine_tuning/jobs/{job_id}": OWN,
    "POST /v1/fine_tuning/jobs/{job_id}/pause": OWN,
    "POST /v1/fine_tuning/jobs/{job_id}/resume": OWN,
    "POST /v1/fine_tuning/jobs/{job_id}/cancel": OWN,
    "GET /v1/fine_tuning/jobs/{job_id}/events": OWN,
    "GET /v1/fine_tuning/jobs/{job_id}/checkpoints": OWN,
    "GET /v1/fine_tuning/model_limits": ANY,
    "GET /tunesmith/v1/fine_tuning/jobs/{job_id}/queue": OWN,
    "GET /tunesmith/v1/fine_tuning/jobs/{job_id}/rollouts": OWN,
    "GET /tunesmith/v1/fine_tuning/jobs/{job_id}/comparison": OWN,
    "GET /tunesmith/v1/fine_tuning/jobs/{job_id}/integrations": OWN,
    "GET /tunesmith/v1/integrations": ADMIN,
    "PUT /tunesmith/v1/integrations/{integration}": Case("admin", body={}),
    "DELETE /tunesmith/v1/integrations/{integration}": ADMIN,
    "GET /tunesmith/v1/queue": ANY,
    "GET /v1/models": ANY,
    "GET /v1/models/{model:path}": OWN,
    "GET /tunesmith/v1/models/{model:path}/export": Case(own=True, query="?format=adapter", computes=True),
    "GET /tunesmith/v1/aliases": ANY,
    "POST /tunesmith/v1/aliases": Case(own=True, body={"alias": f"{MARK}-two", "model": TUNED}),
    "DELETE /tunesmith/v1/aliases/{alias:path}": OWN,
    "DELETE /v1/models/{model:path}": OWN,
    "POST /tunesmith/v1/models": Case("admin", body={}),
    "GET /tunesmith/v1/models": ANY,
    "GET /tunesmith/v1/models/{name}": ANY,
    "DELETE /tunesmith/v1/models/{name}": ADMIN,
    "GET /tunesmith/v1/samplers": ANY,
    "GET /tunesmith/v1/spares": ADMIN,
    "POST /v1/chat/completions": Case(own=True, body={"model": TUNED, "messages": SAID}, computes=True),
    "POST /tunesmith/v1/compare": Case(own=True, body={"models": [NANO, ALIAS], "messages": SAID}, computes=True),
    "POST /v1/completions": Case(own=True, body={"model": ALIAS, "prompt": "Hello"}, computes=True),
    "POST /v1/embeddings": Case(own=True, body={"model": TUNED, "input": "Hello"}, computes=True),
    "GET /v1/chat/completions": ANY,
    "GET /v1/chat/completions/{completion_id}": OWN,
    "GET /v1/chat/completions/{completion_id}/messages": OWN,
    "POST /v1/chat/completions/{completion_id}": Case(own=True, body={"metadata": {"k": "stolen"}}),
    "DELETE /v1/chat/completions/{completion_id}": OWN,
    "POST /v1/responses": Case(
        own=True, body={"model": NANO, "input": "Hello", "previous_response_id": RESPONSE}, foreign=400, computes=True
    ),
    "POST /v1/responses/input_tokens": Case("answers", own=True, body={"model": TUNED, "input": "Hello"}, computes=True),
    "POST /v1/responses/compact": ANY,
    "GET /v1/responses/{response_id}": OWN,
    "GET /v1/responses/{response_id}/input_items": OWN,
    "POST /v1/responses/{response_id}/cancel": OWN,
    "DELETE /v1/responses/{response_id}": OWN,
    "POST /v1/fine_tuning/alpha/graders/validate": Case("answers", body={"grader": GRADER}),
    "POST /v1/fine_tuning/alpha/graders/run": Case(body={"grader": GRADER, "model_sample": "a"}),
    "POST /tunesmith/v1/graders/templates": Case("answers", body={"grader": GRADER, "model_sample": "a"}),
    "POST /v1/webhook_endpoints": Case(body=HOOK),
    "GET /v1/webhook_endpoints": ANY,
    "GET /v1/webhook_endpoints/{endpoint_id}": OWN,
    "POST /v1/webhook_endpoints/{endpoint_id}": Case(own=True, body={"name": f"{MARK} two"}),
    "POST /v1/webhook_endpoints/{endpoint_id}/rotate_secret": OWN,
    "POST /v1/webhook_endpoints/{endpoint_id}/test": Case(own=True, body={"event_type": "x"}),
    "GET /v1/webhook_event_types": ANY,
    "GET /tunesmith/v1/webhook_endpoints/{endpoint_id}/deliveries": OWN,
    "POST /tunesmith/v1/webhook_deliveries/{delivery_id}/redeliver": OWN,
    "DELETE /v1/webhook_endpoints/{endpoint_id}": OWN,
    "DELETE /v1/files/{file_id}": OWN,
    "GET /v1/fine_tuning/checkpoints/{model:path}/permissions": ADMIN,
    "POST /v1/fine_tuning/checkpoints/{model:path}/permissions": Case("admin", body={"project_ids": ["{project_id}"]}),
    "DELETE /v1/fine_tuning/checkpoints/{model:path}/permissions/{permission_id}": ADMIN,
    "GET /tunesmith/v1/projects/{project_id}/limits": ADMIN,
    "PUT /tunesmith/v1/projects/{project_id}/limits": Case("admin", body={}),
    "GET /v1/organization/projects/{project_id}/rate_limits": ADMIN,
    "POST /v1/organization/projects/{project_id}/rate_limits/{rate_limit_id}": Case("admin", body={}),
    "GET /tunesmith/v1/audit": ADMIN,
    "GET /tunesmith/v1/retention": ADMIN,
    "PUT /tunesmith/v1/retention": Case("admin", body={}),
    "GET /tunesmith/v1/storage": ADMIN,
    "POST /tunesmith/v1/gc": Case("admin", body={"dry_run": True}),
    "POST /tunesmith/v1/backup": Case("admin", body={"bases": False}),
    "POST /v1/organization/projects": Case("admin", body={"name": "New"}),
    "GET /v1/organization/projects": ADMIN,
    "GET /v1/organization/projects/{project_id}": ADMIN,
    "POST /v1/organization/projects/{project_id}": Case("admin", body={"name": "Renamed"}),
    "POST /v1/organization/admin_api_keys": Case("admin", body={"name": "another"}),
    "GET /v1/organization/admin_api_keys": ADMIN,
    "GET /v1/organization/admin_api_keys/{key_id}": ADMIN,
    "DELETE /v1/organization/admin_api_keys/{key_id}": ADMIN,
    "GET /v1/organization/projects/{project_id}/api_keys": ADMIN,
    "GET /v1/organization/projects/{project_id}/api_keys/{key_id}": ADMIN,
    "POST /v1/organization/projects/{project_id}/api_keys/{key_id}": Case("admin", body={"expires_in_seconds": 60}),
    "DELETE /v1/organization/projects/{project_id}/api_keys/{key_id}": ADMIN,
    "POST /v1/organization/projects/{project_id}/service_accounts": Case("admin", body={"name": "another"}),
    "GET /v1/organization/projects/{project_id}/service_accounts": ADMIN,
    "GET /v1/organization/projects/{project_id}/service_accounts/{account_id}": ADMIN,
    "DELETE /v1/organization/projects/{project_id}/service_accounts/{account_id}": ADMIN,
    "POST /tunesmith/v1/keys": Case("admin", body={"name": "another"}),
    "GET /tunesmith/v1/me": ANY,
    "GET /tunesmith/v1/keys": ADMIN,
    "DELETE /tunesmith/v1/keys/{key_id}": ADMIN,
    "POST /v1/organization/projects/{project_id}/archive": ADMIN,
}


@dataclass
class House:
    """A server with keys, what a project on it owns, and a key of every kind."""

    served: Any
    http: httpx2.Client
    project: str
    ids: dict[str, str]
    keys: dict[str, str]
    n_asked: int = 0

    def ask(self, route: str, kind: str) -> httpx2.Response:
        """Send a route's request with a kind of key; who owns the objects, or everything, sends nothing that computes."""
        case, (verb, path) = ROUTES[route], route.split(" ")
        for name, value in self.ids.items():
            path = path.replace(f"{{{name}}}", value).replace(f"{{{name}:path}}", value)
        if "admin_api_keys/" in path:
            path = f"{path.rpartition('/')[0]}/{self.ids['admin_key_id']}"
        headers = {} if kind == "none" else {"authorization": f"Bearer {self.keys[kind]}"}
        if kind == "admin":
            headers["openai-project"] = self.project
        sent: dict[str, Any] = {}
        if case.body is not None:
            text = json.dumps({} if case.computes and kind in ("member", "admin", "reader") else case.body)
            for name, value in self.ids.items():
                text = text.replace(f"{{{name}}}", value)
            sent = {"content": text, "headers": headers | {"content-type": "application/json"}}
        elif path.endswith("/parts"):
            sent = {"files": {"data": ("x", b"{}\n")}, "headers": headers}
        self.n_asked += 1
        sent = {"headers": headers, **sent}
        answer = self.http.request(verb, path + case.query, **sent)
        if kind not in ("member", "admin", "reader"):
            asked = path + str(sent)
            told = [
                secret for secret in {MARK, *self.ids.values()} - {NANO} if secret not in asked and secret in answer.text
            ]
            assert told == [], f"{route} tells {kind} of {told}"
        return answer

    def rows(self) -> dict[str, list[str]]:
        """Return every row of the project's, and of the organisation's own tables."""
        with self.served.composed.db.read() as tx:
            return {
                table.name: sorted(
                    str(row)
                    for row in tx.every(select(table))
                    if row.get("project_id", self.project) == self.project or table.name == "api_keys"
                )
                for table in metadata.sorted_tables
            }


@pytest.fixture(scope="module")
def built(
    open_house: Callable[..., AbstractContextManager[Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("walk")
    with (
        open_house(folder, auth="on") as served,
        httpx2.Client(base_url=served.root, timeout=60, trust_env=False) as http,
    ):
        made = served.composed.services.organization
        a, b, gone, spare = (made.create_project(name).id for name in (f"{MARK} A", "B", "gone", "spare"))
        keys = {"garbage": "sk-nothing", "admin": (folder / "admin-key").read_text().strip()}
        for kind, project, role in (
            ("member", a, "member"), ("reader", a, "reader"), ("revoked", a, "member"), ("expired", a, "member"),
            ("other", b, "member"), ("archived", gone, "member"),
        ):  # fmt: skip
            key, keys[kind] = made.create_key(project, kind, role=role)
            if kind == "revoked":
                made.revoke(key.id)
            if kind == "expired":
                identity = served.composed.services.identity
                identity.drop(key)
                identity.add(type(key)(**{**{f: getattr(key, f) for f in key.__slots__}, "expires_at": 1.0}))
        made.archive(gone)
        ids = {
            "project_id": spare,
            "key_id": made.create_key(spare, "spare", role="member")[0].id,
            "account_id": str(made.create_key(spare, "spare", role="member")[0].account_id),
            "admin_key_id": made.create_key(None, "spare", role="admin")[0].id,
            "name": NANO, "permission_id": "cp_none", "rate_limit_id": "rl-none", **_own(served, http, a, keys["member"]),
        }  # fmt: skip
        yield House(served, http, a, ids, keys)


def _own(served: Any, http: httpx2.Client, project: str, member: str) -> dict[str, str]:
    """Make one of everything in a project, by requests where one suffices."""

    def post(path: str, **sent: Any) -> dict[str, Any]:
        answer = http.post(path, headers={"authorization": f"Bearer {member}"}, **sent)
        assert answer.status_code == 200, answer.text
        return answer.json()

    line = {"messages": [{"role": "user", "content": MARK}, {"role": "assistant", "content": MARK}]}
    lines = io.BytesIO(b"".join(json.dumps(line).encode() + b"\n" for _ in range(10)))
    file = post("/v1/files", data={"purpose": "fine-tune"}, files={"file": (f"{MARK}.jsonl", lines)})["id"]
    job = post("/v1/fine_tuning/jobs", json={"model": NANO, "training_file": file, "metadata": {"k": MARK}, "suffix": MARK})[
        "id"
    ]
    upload = post(
        "/v1/uploads", json={"filename": f"{MARK}.jsonl", "purpose": "fine-tune", "bytes": 3, "mime_type": "text/jsonl"}
    )["id"]
    part = post(f"/v1/uploads/{upload}/parts", files={"data": ("x", b"{}\n")})["id"]
    endpoint = post("/v1/webhook_endpoints", json=HOOK)["id"]
    pins = served.composed.services.bases.get(NANO).pins
    done = Job(
        DONE, project, "org-default", NANO, NANO, None, file, None, MARK, 1, "supervised", {"hyperparameters": {}}, None, [],
        {"k": MARK}, 1.0,
        status=Status.SUCCEEDED, fine_tuned_model=TUNED, pins=pins,
    )  # fmt: skip
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        served.composed.services.chat.blobs.put(f"jobs/k/{name}", [b"{}"])
    body = {"id": COMPLETION, "object": "chat.completion", "created": 1, "model": TUNED, "choices": [], "usage": None}
    item = {"id": "msg_1", "type": "message", "role": "user", "content": [{"type": "input_text", "text": MARK}]}
    with served.composed.db.begin() as tx:
        everywhere = Everywhere("the test lays out what others made")
        jobs.add(tx, everywhere, done)
        models.add(tx, everywhere, TunedModel(TUNED, project, "org-default", DONE, NANO, 2.0, "jobs/k", "0" * 64, pins))
        models.add_alias(tx, everywhere, Alias(ALIAS, project, TUNED, 2.0))
        metrics = {"step": 1, "train_loss": 0.5}
        checkpoints.add(tx, everywhere, Checkpoint("ftckpt_x", DONE, project, 1.0, 1, TUNED, "jobs/k", "0" * 64, metrics))
        completions.add(tx, everywhere, Completion(COMPLETION, project, 1.0, TUNED, {"k": MARK}, body, SAID))
        responses.add(
            tx,
            everywhere,
            StoredResponse(
                RESPONSE,
                project,
                1.0,
                None,
                None,
                [item],
                {"id": RESPONSE, "object": "response", "status": "completed", "output": []},
            ),
        )
        webhooks.add_delivery(
            tx,
            everywhere,
            Delivery(
                DELIVERY, project, endpoint, "evt_x", HOOK["event_types"][0], {"id": DONE}, 1.0, 1.0, 9e9, status="failed"
            ),
        )
    return {
        "file_id": file, "job_id": job, "upload_id": upload, "part_id": part, "endpoint_id": endpoint,
        "delivery_id": DELIVERY, "completion_id": COMPLETION, "response_id": RESPONSE, "model": TUNED, "alias": ALIAS,
    }  # fmt: skip


def test_the_table_has_every_route_of_the_app(built: House) -> None:
    routes = iter_route_contexts(create_routes(built.served.composed.services).routes)
    served = {f"{verb} {route.path}" for route in routes for verb in (route.methods or set()) - {"HEAD"}}
    assert set(ROUTES) == served


def test_a_strangers_key_opens_nothing_and_readers_only_look(built: House) -> None:
    before = built.rows()
    wrong: list[str] = []
    for kind in (*REFUSED, "other", "reader"):
        for route, case in ROUTES.items():
            looks = route.startswith("GET") or case.who == "answers"
            if kind == "reader" and route.startswith("GET") and case.computes:
                continue
            if kind == "other" and not case.own and not looks and case.who != "admin":
                continue  # it would make something of its own
            answer = built.ask(route, kind)
            fine = answer.status_code == _refusal(kind, case, get=route.startswith("GET"))
            if not fine:
                wrong.append(f"{kind}: {route}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)
    assert built.rows() == before


def _refusal(kind: str, case: Case, *, get: bool) -> int:
    """Return what somebody is answered to whom nothing here belongs, or who only looks."""
    if case.who == "open" or kind in REFUSED:
        return 200 if case.who == "open" else 401
    if case.who == "admin":
        return 403
    if kind == "other":
        return case.foreign if case.own else case.status
    if get:
        return case.status
    return 403 if case.who != "answers" else 400 if case.computes else 200


def test_a_member_and_an_admin_reach_all_that_is_theirs(built: House) -> None:
    wrong: list[str] = []
    for looks in (True, False):
        for kind in ("member", "admin"):
            for route, case in ROUTES.items():
                if route.startswith("GET") != looks or (looks and case.computes):
                    continue
                answer = built.ask(route, kind)
                refused = case.who == "admin" and kind == "member"
                fine = answer.status_code == 403 if refused else answer.status_code not in (401, 403, 500)
                if looks and not refused:
                    fine = answer.status_code == (200 if case.who == "admin" else case.status)
                if not fine:
                    wrong.append(f"{kind}: {route}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)
    assert built.n_asked > 8 * len(ROUTES)
