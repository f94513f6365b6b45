"""The organisation's endpoints through the official client, its admin key and all, and the command line over them."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from typer.testing import CliRunner

from tunesmith.bootstrap import compose
from tunesmith.cli.main import app
from tunesmith.core.clock import SystemClock
from tunesmith.core.settings import Settings


@pytest.fixture(scope="module")
def keyed(open_house: Callable[..., AbstractContextManager[Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_house(tmp_path_factory.mktemp("organization"), auth="on") as served:
        yield served


@pytest.fixture(scope="module")
def secret(keyed: Any) -> str:
    return (keyed.composed.folder.path / "admin-key").read_text().strip()


@pytest.fixture(scope="module")
def admin(keyed: Any, secret: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=keyed.base_url, api_key="unused", admin_api_key=secret, max_retries=0) as client:
        yield client


def member_of(keyed: Any, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=keyed.base_url, api_key=key, max_retries=0)


def test_a_projects_life(keyed: Any, admin: openai.OpenAI) -> None:
    organization = admin.admin.organization
    made = organization.projects.create(name="Speech")
    assert (made.object, made.name, made.status, made.archived_at) == ("organization.project", "Speech", "active", None)
    assert organization.projects.retrieve(made.id) == made
    assert organization.projects.update(made.id, name="Voice").name == "Voice"
    assert [project.id for project in organization.projects.list(limit=1)][:1] == ["proj_default"]
    assert made.id in {project.id for project in organization.projects.list(limit=1)}

    account = organization.projects.service_accounts.create(made.id, name="ci", expires_in_seconds=60)
    assert account.api_key is not None
    assert account.api_key.value.startswith("sk-")
    assert account.api_key.expires_at == account.api_key.created_at + 60
    accounts = organization.projects.service_accounts
    assert [each.id for each in accounts.list(made.id, limit=1)] == [account.id]
    assert accounts.retrieve(account.id, project_id=made.id).name == "ci"
    [key] = organization.projects.api_keys.list(made.id)
    assert (key.id, key.owner.type, key.owner_project_access) == (account.api_key.id, "service_account", "active")
    assert key.owner.service_account is not None
    assert key.owner.service_account.id == account.id
    assert account.api_key.value not in key.to_json()
    assert key.last_used_at is None
    with member_of(keyed, account.api_key.value) as client:
        assert client.files.list().data == []
        assert organization.projects.api_keys.retrieve(key.id, project_id=made.id).last_used_at is not None
        with pytest.raises(openai.NotFoundError):
            organization.projects.api_keys.retrieve(key.id, project_id="proj_default")
        assert organization.projects.archive(made.id).status == "archived"
        with pytest.raises(openai.AuthenticationError) as refused:
            client.files.list()
        assert refused.value.code == "not_authorized_invalid_project"
    assert made.id not in {project.id for project in organization.projects.list()}
    assert made.id in {project.id for project in organization.projects.list(include_archived=True)}
    assert [each.id for each in organization.projects.api_keys.list(made.id, owner_project_access="active")] == []
    with pytest.raises(openai.BadRequestError, match="archived"):
        organization.projects.service_accounts.create(made.id, name="late")


def test_a_deleted_account_and_a_deleted_key_open_nothing(keyed: Any, admin: openai.OpenAI) -> None:
    projects = admin.admin.organization.projects
    made = [projects.service_accounts.create("proj_default", name="x") for _ in range(2)]
    keys = [each.api_key for each in made]
    assert keys[0] is not None
    assert keys[1] is not None
    assert projects.service_accounts.delete(made[0].id, project_id="proj_default").deleted
    assert projects.api_keys.delete(keys[1].id, project_id="proj_default").deleted
    for key in keys:
        assert key is not None
        with member_of(keyed, key.value) as client, pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_a_key_is_changed_while_it_is_used(keyed: Any, admin: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    projects = admin.admin.organization.projects
    key = projects.service_accounts.create("proj_default", name="x").api_key
    assert key is not None
    change: Any = partial(projects.api_keys.update, key.id, project_id="proj_default")
    with member_of(keyed, key.value) as client:

        def upload() -> str:
            return client.files.create(file=("a.txt", b"x"), purpose="user_data").id

        file = upload()
        told = change(scopes=["api.all.read"])
        assert (told.id, told.owner.service_account.role, told.expires_at) == (key.id, "reader", None)
        assert client.files.retrieve(file).id == file
        with pytest.raises(openai.PermissionDeniedError):
            upload()
        with pytest.raises(openai.BadRequestError, match=r"permissions by endpoint are not here - 'scopes'"):
            change(scopes=["api.model.request"])
        assert change(scopes=[]).owner.service_account.role == "member"
        until = change(expires_in_seconds=60).expires_at
        assert 50 < until - time.time() <= 60
        upload()
        assert projects.api_keys.retrieve(key.id, project_id="proj_default").expires_at == until
        with pytest.raises(openai.NotFoundError):
            projects.api_keys.update(key.id, project_id=projects.create(name="Elsewhere").id, scopes=[])
        real = SystemClock().now
        monkeypatch.setattr(type(keyed.composed.services.clock), "now", lambda _: real() + 61)
        with pytest.raises(openai.AuthenticationError, match="has expired"):
            upload()
        with pytest.raises(openai.BadRequestError, match="has expired and stays so"):
            change(expires_in_seconds=60)


def test_what_cannot_be_archived(keyed: Any, admin: openai.OpenAI, rows: Callable[[int], bytes]) -> None:
    organization = admin.admin.organization
    with pytest.raises(openai.BadRequestError, match="stays"):
        organization.projects.archive("proj_default")
    busy = organization.projects.create(name="busy")
    key = organization.projects.service_accounts.create(busy.id, name="x").api_key
    assert key is not None
    with member_of(keyed, key.value) as client:
        file = client.files.create(file=("rows.jsonl", rows(10)), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(model="tunesmith-nano", training_file=file.id)
        with pytest.raises(openai.BadRequestError, match="1 unfinished"):
            organization.projects.archive(busy.id)
        client.fine_tuning.jobs.cancel(job.id)
    assert organization.projects.archive(busy.id).status == "archived"


def test_admin_keys(keyed: Any, admin: openai.OpenAI, secret: str) -> None:
    keys = admin.admin.organization.admin_api_keys
    made = keys.create(name="second", expires_in_seconds=3600)
    assert made.value.startswith("sk-admin-")
    assert [key.name for key in keys.list(limit=1)] == ["first admin key", "second"]
    assert [key.name for key in keys.list(order="desc")] == ["second", "first admin key"]
    assert made.value not in keys.retrieve(made.id).to_json()
    first = next(key for key in keys.list() if key.name == "first admin key")
    assert first.redacted_value == f"{secret[:13]}****{secret[-4:]}"
    assert keys.delete(made.id).deleted
    with pytest.raises(openai.BadRequestError, match="last admin key"):
        keys.delete(first.id)
    with (
        openai.OpenAI(base_url=keyed.base_url, api_key="x", admin_api_key=made.value, max_retries=0) as gone,
        pytest.raises(openai.AuthenticationError),
    ):
        gone.admin.organization.projects.list()


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tunesmith/v1/keys", {"name": "x", "role": "admin"}, "role"),
        ("/tunesmith/v1/keys", {"name": ""}, "name"),
        ("/tunesmith/v1/keys", {"name": "x", "expires_at": 5}, "expires_at"),
        ("/tunesmith/v1/keys", {"name": "x", "expires_at": 10**12}, "expires_at"),
        ("/tunesmith/v1/keys", {"name": "x", "project_id": "proj_none"}, "project_id"),
        ("/v1/organization/projects", {"name": "x", "geography": "EU"}, "geography"),
        ("/v1/organization/admin_api_keys", {"name": "x", "expires_in_seconds": 0}, "expires_in_seconds"),
        ("/v1/organization/projects/proj_default/service_accounts", {"name": "x", "create_service_account_only": True},
         "create_service_account_only"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_names_the_field(keyed: Any, secret: str, path: str, body: Any, param: str) -> None:
    answer = httpx2.post(keyed.root + path, json=body, headers={"authorization": f"Bearer {secret}"}, trust_env=False)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param


def test_a_key_is_never_kept_for_a_second_telling(keyed: Any, secret: str) -> None:
    headers = {"authorization": f"Bearer {secret}", "idempotency-key": "once"}
    answer = httpx2.post(f"{keyed.root}/tunesmith/v1/keys", json={"name": "x"}, headers=headers, trust_env=False)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")


def test_the_command_line(keyed: Any, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def tunesmith(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, [*words, "--base-url", keyed.base_url])
        assert result.exit_code == code, result.output
        return result.output

    monkeypatch.delenv("TUNESMITH_API_KEY", raising=False)
    assert "No API key was provided" in tunesmith("keys", "list", code=1)
    monkeypatch.setenv("TUNESMITH_ADMIN_KEY", secret)
    project = tunesmith("projects", "create", "Shop").split()[-1]
    assert project in tunesmith("projects", "list")
    made = tunesmith("keys", "create", "ada", "--project", project, "--reader", "--days", "2").splitlines()
    assert made[-1].startswith("sk-")
    line = next(each for each in tunesmith("keys", "list", "--project", project).splitlines() if each.startswith("key_"))
    key_id = line.split("\t")[0]
    assert line.split("\t")[1:4] == ["reader", project, "ada"]
    assert made[-1] not in line
    assert json.loads(tunesmith("keys", "list", "--json").splitlines()[-1])["data"][0]["role"] == "admin"
    assert json.loads(tunesmith("keys", "create", "root", "--admin", "--json").splitlines()[-1])["value"].startswith(
        "sk-admin-"
    )
    with member_of(keyed, made[-1]) as client:
        client.models.list()
        tunesmith("keys", "revoke", key_id)
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
    tunesmith("projects", "archive", project)
    assert "archived" in tunesmith("projects", "list", "--archived")


def test_the_admin_key_of_the_environment_is_one_as_long_as_it_stands_there(tmp_path: Path) -> None:
    def roles(**settings: Any) -> dict[str, str]:
        composed = compose(Settings(data_dir=tmp_path / "data", sampler_warm=False, auth="on", **settings))
        try:
            return {key.id: key.name for key in composed.services.identity.every_key()}
        finally:
            asyncio.run(composed.close())

    assert roles(admin_key="x" * 20) == {"key_environment": "TUNESMITH_ADMIN_KEY"}
    assert not (tmp_path / "data" / "admin-key").exists()
    assert (tmp_path / "data" / "tunesmith.db").stat().st_mode & 0o777 == 0o600
    assert roles(admin_key="y" * 20) == {"key_environment": "TUNESMITH_ADMIN_KEY"}
    [made] = roles().values()
    assert made == "first admin key"
    assert (tmp_path / "data" / "admin-key").exists()
    assert roles() == roles()


def test_who_asks_is_told(keyed: Any, secret: str, admin: openai.OpenAI) -> None:
    def me(key: str, **headers: str) -> dict[str, Any]:
        sent = {"authorization": f"Bearer {key}", **headers}
        answer = httpx2.get(f"{keyed.root}/tunesmith/v1/me", headers=sent, trust_env=False)
        assert answer.status_code == 200, answer.text
        assert key not in answer.text
        return answer.json()

    organization = keyed.composed.services.organization
    made = organization.create_project("Vision")
    key, text = organization.create_key(made.id, "screen", role="reader", expires_at=2**40)
    reader = me(text)
    assert reader == {
        "object": "tunesmith.me",
        "role": "reader",
        "organization": {"id": "org-default", "name": "tunesmith"},
        "project": {"id": made.id, "name": "Vision"},
        "key": {
            "id": key.id, "name": "screen", "redacted_value": key.hint, "created_at": int(key.created_at),
            "expires_at": 2**40,
        },
        "may": {"look": True, "change": False, "administer": False},
    }  # fmt: skip
    assert me(organization.create_key(made.id, "x", role="member")[1])["may"]["change"]
    own = me(secret, **{"openai-project": made.id})
    assert (own["role"], own["project"]["id"], own["may"]["administer"]) == ("admin", made.id, True)
