"""The audit log: every change with who, from where and on what; no question, no refusal, nothing that was said."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from typer.testing import CliRunner

from scripted import MODEL, scripted
from tunesmith.api.app import create_routes
from tunesmith.api.audit import QUESTIONS
from tunesmith.cli.main import app
from tunesmith.core.ids import Ids
from tunesmith.domain.identity import Key, hashed, masked

PATH = "/tunesmith/v1/audit"
SECRET = "the word that nobody else shall read"


@pytest.fixture(scope="module")
def keyed(open_house: Callable[..., AbstractContextManager[Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("audited")
    with open_house(folder, auth="on") as served:
        scripted(served)
        yield served


@pytest.fixture(scope="module")
def admin(keyed: Any) -> Iterator[httpx2.Client]:
    secret = (keyed.composed.folder.path / "admin-key").read_text().strip()
    headers = {"authorization": f"Bearer {secret}"}
    with httpx2.Client(base_url=keyed.root, headers=headers, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def member(keyed: Any) -> Iterator[openai.OpenAI]:
    ids = Ids()
    secret = ids.key()
    key = Key("key_member", "proj_default", "member", "test", hashed(secret.encode()), masked(secret), 1.0)
    keyed.composed.services.identity.add(key)
    with openai.OpenAI(base_url=keyed.base_url, api_key=secret, max_retries=0) as client:
        yield client


def log(admin: httpx2.Client, **asked: Any) -> list[dict[str, Any]]:
    answer = admin.get(PATH, params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def newest(admin: httpx2.Client) -> str | None:
    entries = log(admin, limit=1)
    return entries[0]["id"] if entries else None


def since(admin: httpx2.Client, before: str | None) -> list[dict[str, Any]]:
    """Return what was noted after an entry, oldest first."""
    return log(admin, order="asc", limit=100, **({} if before is None else {"after": before}))


def test_a_change_is_told_with_who_where_and_what(
    admin: httpx2.Client, member: openai.OpenAI, rows: Callable[[int], bytes]
) -> None:
    before = newest(admin)
    file = member.files.create(file=(f"{SECRET}.jsonl", rows(10)), purpose="fine-tune")
    job = member.fine_tuning.jobs.create(model=MODEL, training_file=file.id, metadata={"k": SECRET})
    member.fine_tuning.jobs.cancel(job.id)
    member.files.delete(file.id)
    alias = admin.post("/tunesmith/v1/aliases", json={"alias": "mine", "model": MODEL})
    entries = since(admin, before)
    assert [(entry["action"], entry["objects"]) for entry in entries] == [
        ("POST /v1/files", [file.id]),
        ("POST /v1/fine_tuning/jobs", [job.id]),
        ("POST /v1/fine_tuning/jobs/{job_id}/cancel", [job.id]),
        ("DELETE /v1/files/{file_id}", [file.id]),
        ("POST /tunesmith/v1/aliases", ["mine"]),
    ]
    theirs, own = entries[0], entries[-1]
    assert theirs["request_id"] == file._request_id
    assert (theirs["actor"], theirs["key_id"], theirs["address"]) == ("member", "key_member", "127.0.0.1")
    assert (theirs["project_id"], theirs["status"], theirs["object"]) == ("proj_default", 200, "tunesmith.audit_entry")
    assert (own["actor"], own["request_id"]) == ("admin", alias.headers["x-request-id"])
    assert own["key_id"] not in (None, "key_member")
    assert SECRET not in admin.get(PATH).text
    assert [entry["id"] for entry in log(admin, key_id="key_member", limit=2)] == [entry["id"] for entry in entries[3:1:-1]]
    assert log(admin, project_id="proj_none") == log(admin, until=1) == []
    assert log(admin, since=own["created_at"])[0] == own


def test_questions_refusals_and_repeated_answers_are_no_changes(
    admin: httpx2.Client, member: openai.OpenAI, rows: Callable[[int], bytes]
) -> None:
    key: Any = {"extra_headers": {"Idempotency-Key": "once"}}
    file = member.files.create(file=("rows.jsonl", rows(10)), purpose="fine-tune").id
    before = newest(admin)
    member.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}])
    member.responses.create(model=MODEL, input="x")
    member.models.list()
    for refused in (lambda: member.files.delete("file-x"), lambda: member.fine_tuning.jobs.cancel("ftjob-x")):
        with pytest.raises(openai.NotFoundError):
            refused()
    assert admin.post("/v1/nowhere").status_code == 404
    assert since(admin, before) == []
    jobs = {member.fine_tuning.jobs.create(model=MODEL, training_file=file, **key).id for _ in range(2)}
    assert [(entry["action"], set(entry["objects"])) for entry in since(admin, before)] == [
        ("POST /v1/fine_tuning/jobs", jobs)
    ]


def test_admins_alone_read_it(member: openai.OpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        member.get(str(member.base_url.join(PATH)), cast_to=object)


def test_every_question_is_a_route_and_every_other_verb_a_change(keyed: Any) -> None:
    paths = create_routes(keyed.composed.services).openapi()["paths"]
    posts = {path for path, verbs in paths.items() if "post" in verbs}
    assert posts >= QUESTIONS


def test_what_the_server_does_by_itself_is_told_too(
    admin: httpx2.Client, member: openai.OpenAI, rows: Callable[[int], bytes]
) -> None:
    file = member.files.create(file=("rows.jsonl", rows(10)), purpose="fine-tune").id
    job = member.fine_tuning.jobs.create(model=MODEL, training_file=file).id
    before = newest(admin)
    member.files.delete(file)
    failed, deleted = sorted(since(admin, before), key=lambda entry: entry["actor"], reverse=True)
    assert (failed["actor"], failed["action"], failed["objects"]) == ("system", "job.failed", [job])
    assert (failed["key_id"], failed["address"], failed["request_id"], failed["status"]) == (None, None, None, None)
    assert deleted["action"] == "DELETE /v1/files/{file_id}"


def test_the_address_is_what_the_nearest_proxy_says(admin: httpx2.Client) -> None:
    for number, forwarded in enumerate(("10.0.0.7", "6.6.6.6, 10.0.0.8", None)):
        headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
        body = {"alias": f"proxied{number}", "model": MODEL}
        assert admin.post("/tunesmith/v1/aliases", json=body, headers=headers).status_code == 200
    assert [entry["address"] for entry in log(admin, limit=3)] == ["127.0.0.1", "10.0.0.8", "10.0.0.7"]


def test_the_first_admin_key_is_told_as_the_server_s_own(keyed: Any, admin: httpx2.Client) -> None:
    first = log(admin, limit=1, order="asc")[0]
    keys = {key.id for key in keyed.composed.services.identity.every_key() if key.role == "admin"}
    assert (first["actor"], first["action"], set(first["objects"])) == ("system", "admin_api_key.created", keys)


def test_the_admin_key_of_the_environment_is_told_when_it_comes_and_goes(
    open_house: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    for key in ("the-first-admin-key-of-it", "the-other-admin-key-of-it", "the-other-admin-key-of-it"):
        with (
            open_house(tmp_path / "data", auth="on", admin_key=key) as served,
            httpx2.Client(base_url=served.root, headers={"authorization": f"Bearer {key}"}, trust_env=False) as http,
        ):
            told = [entry["action"] for entry in log(http, order="asc")]
    assert told == [f"admin_api_key.{what}" for what in ("created", "deleted", "created")]


def test_a_server_that_ends_has_written_everything(
    open_house: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    with open_house(folder) as served, httpx2.Client(base_url=served.root, trust_env=False) as http:
        for number in range(20):
            assert http.post("/tunesmith/v1/aliases", json={"alias": f"a{number}", "model": MODEL}).status_code == 200
    with open_house(folder) as served, httpx2.Client(base_url=served.root, trust_env=False) as http:
        told = http.get(PATH, params={"limit": 100, "order": "asc"}).json()["data"]
        assert [entry["objects"] for entry in told] == [[f"a{number}"] for number in range(20)]
        command = ["audit", "--limit", "1", "--since", "2026-01-01", "--base-url", served.base_url]
        line = CliRunner().invoke(app, command).stdout
        assert line.strip().split("\t")[1:] == [
            "admin",
            "-",
            "127.0.0.1",
            "proj_default",
            "POST /tunesmith/v1/aliases",
            "a19",
        ]


@pytest.mark.parametrize("moment", [-1, 2**64])
def test_a_time_that_nobody_can_mean_is_refused(admin: httpx2.Client, moment: int) -> None:
    answer = admin.get("/tunesmith/v1/audit", params={"since": moment})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "since")
