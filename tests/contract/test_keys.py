"""Who asks: what a key must look like, what is said to one that is none, what each role may, whose project is meant."""

import io
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tunesmith.cli.doctor import _server  # pyright: ignore[reportPrivateUsage] - what `tunesmith doctor` prints takes seconds
from tunesmith.core.ids import Ids
from tunesmith.core.settings import Settings
from tunesmith.domain.identity import Key, NamedProject, Role, hashed, masked
from tunesmith.domain.scope import Everywhere
from tunesmith.store import identity as rows

EVERYWHERE = Everywhere("a test")
IDS = Ids()


@dataclass(frozen=True)
class Keyed:
    """A server that needs keys, with its admin's."""

    served: Any
    admin: str

    @property
    def root(self) -> str:
        return self.served.root

    def key(self, role: Role = "member", project_id: str | None = "proj_default", expires_at: float | None = None) -> str:
        secret = IDS.key()
        made = Key(
            IDS.key_id(), project_id, role, "test", hashed(secret.encode()), masked(secret), 1.0, expires_at=expires_at
        )
        self.served.composed.services.identity.add(made)
        return secret


@pytest.fixture(scope="module")
def keyed(
    open_house: Callable[..., AbstractContextManager[Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("keyed")
    with open_house(folder, auth="on") as served:
        identity = served.composed.services.identity
        other = NamedProject("proj_other", "org-default", "Other", 2.0)
        with identity._db.begin() as tx:
            rows.add_project(tx, EVERYWHERE, other)
        identity.keep_project(other)
        yield Keyed(served, (folder / "admin-key").read_text().strip())


@pytest.fixture(scope="module")
def raw(keyed: Keyed) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=keyed.root, timeout=60, trust_env=False) as client:
        yield client


def bearer(secret: str, **headers: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}", **{name.replace("_", "-"): value for name, value in headers.items()}}


def error_of(answer: httpx2.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


def test_the_first_admin_key_is_in_a_file_that_its_owner_alone_reads(keyed: Keyed) -> None:
    file: Path = keyed.served.composed.folder.path / "admin-key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert keyed.admin.startswith("sk-admin-")
    assert len(keyed.admin) == len("sk-admin-") + 43
    assert [path for path in file.parent.rglob("*") if path.is_file() and keyed.admin.encode() in path.read_bytes()] == [
        file
    ]


def test_a_client_without_a_key_and_with_a_wrong_one(keyed: Keyed, raw: httpx2.Client) -> None:
    answer = raw.get("/v1/models")
    assert error_of(answer, 401)["code"] is None
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "openai-organization" not in answer.headers
    assert answer.headers["x-request-id"].startswith("req_")
    wrong = IDS.key()
    with (
        openai.OpenAI(base_url=keyed.served.base_url, api_key=wrong, max_retries=2) as client,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        client.files.create(file=("big.jsonl", io.BytesIO(b"x" * 2_000_000)), purpose="fine-tune")
    assert refused.value.code == "invalid_api_key"
    assert f"{wrong[:7]}****{wrong[-4:]}" in refused.value.message
    assert wrong[8:-5] not in refused.value.message


def test_whoever_watches_the_server_needs_no_key(raw: httpx2.Client) -> None:
    assert raw.get("/healthz").json() == {"status": "ok"}
    assert raw.head("/healthz").status_code == 200
    while (ready := raw.get("/readyz").json())["sandbox"] == "probing":
        pass
    assert ready["status"] == "ready"


def test_every_role_and_project_is_told_apart(keyed: Keyed, raw: httpx2.Client) -> None:
    member, other, reader = keyed.key(), keyed.key(project_id="proj_other"), keyed.key("reader")
    sent: Any = {"data": {"purpose": "user_data"}, "files": {"file": ("a.txt", b"kept")}}
    answer = raw.post("/v1/files", headers=bearer(member), **sent)
    assert (answer.headers["openai-organization"], answer.headers["openai-project"]) == ("org-default", "proj_default")
    file = f"/v1/files/{answer.json()['id']}"
    assert raw.get(file, headers=bearer(reader)).status_code == 200
    assert raw.get(file, headers=bearer(keyed.admin)).status_code == 200
    answer = raw.get(file, headers=bearer(other))
    assert (answer.status_code, answer.headers["openai-project"]) == (404, "proj_other")
    assert raw.get(file, headers=bearer(keyed.admin, openai_project="proj_other")).status_code == 404
    refused = error_of(raw.delete(file, headers=bearer(reader)), 403)
    assert refused["code"] == "insufficient_permissions"
    assert "'reader'" in refused["message"]
    assert error_of(raw.delete("/tunesmith/v1/models/x", headers=bearer(member)), 403)["code"] == "insufficient_permissions"
    assert raw.delete("/tunesmith/v1/models/x", headers=bearer(keyed.admin)).status_code == 404
    grader = {"grader": {"type": "string_check", "name": "g", "input": "a", "reference": "a", "operation": "eq"}}
    assert raw.post("/v1/fine_tuning/alpha/graders/validate", json=grader, headers=bearer(reader)).status_code == 200
    assert raw.post("/v1/fine_tuning/alpha/graders/run", json=grader, headers=bearer(reader)).status_code == 403


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"openai-project": "proj_other"}, "mismatched_project"),
        ({"openai-project": "proj_none"}, "mismatched_project"),
        ({"openai-organization": "org-other"}, "mismatched_organization"),
        ({"openai-project": "proj_default", "openai-organization": "org-default"}, None),
        ({"openai-project": "", "openai-organization": "tunesmith"}, None),
    ],
)
def test_headers_that_name_a_project_or_an_organization_are_believed(
    keyed: Keyed, raw: httpx2.Client, headers: dict[str, str], code: str | None
) -> None:
    answer = raw.get("/v1/files", headers=bearer(keyed.key()) | headers)
    if code is None:
        assert answer.status_code == 200
    else:
        assert error_of(answer, 401)["code"] == code


def test_a_revoked_and_an_expired_key_are_refused_at_once(keyed: Keyed, raw: httpx2.Client) -> None:
    identity = keyed.served.composed.services.identity
    secret = keyed.key()
    with httpx2.Client(base_url=keyed.root, headers=bearer(secret), trust_env=False) as client:
        assert client.get("/v1/files").status_code == 200
        identity.drop(identity.authenticate(secret.encode()).key)
        assert error_of(client.get("/v1/files"), 401)["code"] == "invalid_api_key"
    expired = error_of(raw.get("/v1/files", headers=bearer(keyed.key(expires_at=2.0))), 401)
    assert expired["code"] == "invalid_api_key"
    assert "expired" in expired["message"]


def _ask(root: str, *lines: bytes, path: bytes = b"/v1/files") -> tuple[bytes, bytes]:
    """Return status line and body of the answer to a request of these header lines."""
    host, port = root.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as line:
        line.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + b"".join(lines) + b"\r\n")
        answer = b""
        while more := line.recv(65536):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0], body


def test_strange_headers_open_nothing_and_break_nothing(keyed: Keyed) -> None:
    good = keyed.key().encode()
    for scheme in (b"Bearer", b"bearer", b"BEARER"):
        assert b" 200 " in _ask(keyed.root, b"Authorization: " + scheme + b" " + good + b"\r\n")[0]
    line = b"Authorization: Bearer " + good + b"\r\n"
    for strange in (
        [line, line],
        [b"Authorization: Bearer\r\n"],
        [b"Authorization: Bearer    \r\n"],
        [b"Authorization: " + good + b"\r\n"],
        [b"Authorization: Basic " + good + b"\r\n"],
        [b"Authorization: Bearer " + good + b" " + good + b"\r\n"],
        [b"Authorization: Bearer " + good + b"," + good + b"\r\n"],
        [b"Authorization: Bearer " + good.upper() + b"\r\n"],
        [b"Authorization: Bearer " + good[:-1] + b"\r\n"],
        [b"Authorization: Bearer " + good * 200 + b"\r\n"],
        [b"Authorization: Bearer \xc3\xbc\xff" + good + b"\r\n"],
        [b"X-Api-Key: " + good + b"\r\n"],
        [b"Cookie: api_key=" + good + b"\r\n"],
    ):
        status, body = _ask(keyed.root, *strange)
        assert b" 401 " in status, strange
        assert good[8:-5] not in body
    for name in (b"api_key", b"key", b"access_token", b"authorization"):
        status, _ = _ask(keyed.root, path=b"/v1/files?" + name + b"=" + good)
        assert b" 401 " in status
    assert b" 400 " in _ask(keyed.root, b"Authorization: Bearer sk-\x00" + good + b"\r\n")[0]


def test_with_keys_any_host_and_origin_may_be_named(keyed: Keyed, raw: httpx2.Client) -> None:
    headers = bearer(keyed.key(), host="tunesmith.example", origin="https://evil.example")
    assert raw.get("/v1/files", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("role", "told"),
    [("admin", "base models: tunesmith-nano"), ("member", "told with an admin key"), (None, "TUNESMITH_API_KEY")],
)
def test_the_doctor_asks_with_the_key_that_it_has(
    keyed: Keyed, role: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = {"admin": keyed.admin, "member": keyed.key(), None: ""}[role]
    monkeypatch.setenv("TUNESMITH_API_KEY", secret)
    monkeypatch.delenv("TUNESMITH_ADMIN_KEY", raising=False)
    settings = Settings(port=int(keyed.root.rpartition(":")[2]), auth="on", data_dir=keyed.served.composed.folder.path)
    answer, _, spares = _server(settings)
    assert told in f"{answer} {spares}"
