"""Error bodies on every path (unknown URLs, wrong verbs, hostile headers, oversize bodies, crashes) and every header."""

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tunesmith.api.app import create_routes, framed
from tunesmith.api.not_available import PATHS

NOT_PLANNED = [
    ("POST", "/v1/evals"),
    ("GET", "/v1/batches"),
    ("POST", "/v1/assistants"),
    ("GET", "/v1/threads/x"),
    ("POST", "/v1/images/generations"),
    ("POST", "/v1/moderations"),
    ("POST", "/v1/audio/speech"),
    ("POST", "/v1/realtime/sessions"),
    ("GET", "/v1/vector_stores"),
    ("GET", "/v1/fine-tunes"),
    ("GET", "/v1"),
    ("GET", "/"),
    ("GET", "/v1/files/"),
    ("GET", "/docs"),
    ("POST", "/chat/completions"),
]


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    """Return the error object, having checked its form."""
    body = answer.json()
    assert list(body) == ["error"]
    error = body["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["message"]
    assert error["type"] in {"invalid_request_error", "server_error"}
    assert re.fullmatch("req_[0-9a-f]{32}", answer.headers["x-request-id"])
    assert int(answer.headers["openai-processing-ms"]) >= 0
    assert answer.headers["content-type"] == "application/json"
    return error


def test_every_answer_carries_the_recorded_headers(http: httpx2.Client) -> None:
    for path in ("/v1/models", "/v1/nothing", "/healthz"):
        headers = http.get(path).headers
        assert re.fullmatch("req_[0-9a-f]{32}", headers["x-request-id"])
        assert int(headers["openai-processing-ms"]) >= 0
        assert headers["openai-version"] == "2020-10-01"
        assert headers["openai-organization"] == "org-default"
        assert headers["openai-project"] == "proj_default"
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
    assert http.get("/healthz").headers["x-request-id"] != http.get("/healthz").headers["x-request-id"]


def test_the_client_shows_the_request_id(client: openai.OpenAI) -> None:
    assert client.models.list()._request_id is not None
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody")
    assert caught.value.request_id is not None
    assert caught.value.request_id.startswith("req_")


def test_health_is_told(http: httpx2.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    ready = http.get("/readyz").json()
    while ready["sandbox"] == "probing":  # in a folder that is gone after it
        threading.Event().wait(0.05)
        ready = http.get("/readyz").json()
    assert ready.pop("sandbox") in ("full", "reduced", "none")
    assert ready == {"status": "ready"}


@pytest.mark.parametrize(("verb", "path"), NOT_PLANNED)
def test_what_is_not_served_is_a_404(http: httpx2.Client, verb: str, path: str) -> None:
    answer = http.request(verb, path)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (404, "unknown_url")
    assert f"{verb} {path}" in error["message"]


@pytest.mark.parametrize(("verb", "path", "what"), PATHS)
def test_what_comes_with_other_releases_is_a_400(http: httpx2.Client, verb: str, path: str, what: str) -> None:
    url = "/v1" + re.sub(r"\{\w+\}", "x:y", path.replace("{name:path}", "ft:x%2Fy::z"))
    answer = http.request(verb, url, json={"anything": 1} if verb == "POST" else None)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (400, "not_available")
    assert what in error["message"]


SEEN: Any = [{"role": "user", "content": {"type": "input_image", "image_url": "https://example.com/a.png"}}]
JUDGED: Any = {"type": "score_model", "name": "s", "model": "tunesmith-nano", "input": SEEN}
LATER: dict[str, Callable[[openai.OpenAI], Any]] = {
    "graders.images": lambda c: c.fine_tuning.alpha.graders.validate(grader=JUDGED),
}


@pytest.mark.parametrize("call", LATER)
def test_what_comes_with_other_releases_is_told_to_the_official_client(client: openai.OpenAI, call: str) -> None:
    with pytest.raises(openai.BadRequestError, match="not available in this release") as caught:
        LATER[call](client)
    assert caught.value.code == "not_available"


@pytest.mark.parametrize(
    ("verb", "path", "allowed"),
    [
        ("PUT", "/v1/files", "GET, HEAD, POST"),
        ("PATCH", "/v1/files/file-x", "DELETE, GET, HEAD"),
        ("DELETE", "/v1/fine_tuning/jobs", "GET, HEAD, POST"),
        ("GET", "/v1/fine_tuning/jobs/x/cancel", "POST"),
        ("POST", "/v1/models/x", "DELETE, GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("TRACE", "/v1/models", "GET, HEAD"),
    ],
)
def test_a_wrong_verb_is_a_405_that_names_the_right_ones(http: httpx2.Client, verb: str, path: str, allowed: str) -> None:
    answer = http.request(verb, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert allowed in error_of(answer)["message"]


def test_options_names_the_verbs_and_no_origin_is_let_in(http: httpx2.Client) -> None:
    answer = http.options("/v1/files")
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, "GET, HEAD, POST", b"")
    assert "access-control-allow-origin" not in answer.headers


def test_head_is_get_without_the_body(http: httpx2.Client) -> None:
    head, get = http.head("/v1/models"), http.get("/v1/models")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(get.content)))
    assert http.head("/v1/nothing").status_code == 404


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:9", "127.8.8.8"]
)
def test_a_local_host_is_let_in(http: httpx2.Client, host: str) -> None:
    assert http.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:8000", "0.0.0.0", "192.168.0.4", "",
     "localhost@evil.example", "localhost:x", "[::2]", "[::1", "localhost/x", "localhost#x"],
)  # fmt: skip
def test_a_foreign_host_is_refused_with_the_reason(http: httpx2.Client, host: str) -> None:
    answer = http.get("/v1/models", headers={"host": host})
    assert answer.status_code == 403
    assert "no keys" in error_of(answer)["message"]


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:5173"])
def test_a_local_origin_is_let_in(http: httpx2.Client, origin: str) -> None:
    assert http.get("/v1/models", headers={"origin": origin}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "file://", "", "localhost"]
)
def test_a_foreign_origin_is_refused_with_the_reason(http: httpx2.Client, origin: str) -> None:
    for verb, path in (("POST", "/v1/fine_tuning/jobs/x/cancel"), ("GET", "/v1/files"), ("OPTIONS", "/v1/files")):
        answer = http.request(verb, path, headers={"origin": origin})
        assert answer.status_code == 403
        assert "Origin" in error_of(answer)["message"]


@pytest.mark.parametrize(
    "url", ["/v1/models/a%00b", "/v1/files/%00", "/v1/files?after=%00", "/v1/fine_tuning/jobs?metadata[a]=%00"]
)
def test_nul_in_a_url_is_refused(http: httpx2.Client, url: str) -> None:
    answer = http.get(url)
    assert (answer.status_code, "NUL" in error_of(answer)["message"]) == (400, True)


def test_a_body_over_the_limit_is_a_413_declared_or_not(http: httpx2.Client, served: Any) -> None:
    limit = served.composed.settings.max_body_bytes

    def chunks() -> Iterator[bytes]:
        for _ in range(limit // 1024 * 2):
            yield b" " * 1024

    headers = {"content-type": "application/json"}
    for content in (b" " * (limit + 1), chunks()):
        answer = http.post("/v1/fine_tuning/jobs", content=content, headers=headers)
        assert answer.status_code == 413
        assert str(limit) in error_of(answer)["message"]
    assert http.post("/v1/fine_tuning/jobs", content=b" " * limit, headers=headers).status_code == 400


def test_a_body_that_waits_for_a_nod_is_refused_before_it_is_sent(served: Any) -> None:
    port = int(served.root.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.sendall(
            b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 999999999\r\n\r\n"
        )
        answer = b""
        while piece := line.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "request_",
    [
        "GET /v1/models/ü HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "nonsense\r\n\r\n",
        "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        "POST /v1/fine_tuning/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n",
    ],
)
def test_what_is_no_http_is_told_like_any_other_error(served: Any, request_: str) -> None:
    port = int(served.root.rpartition(":")[2])
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.sendall(request_.encode())
        while piece := line.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    named = dict(header.lower().split(": ", 1) for header in headers)
    error = error_of(httpx2.Response(400, headers=named, content=body))
    assert (status, named["connection"]) == ("HTTP/1.1 400 ", "close")
    assert "not valid HTTP/1.1" in error["message"]


def test_a_client_that_leaves_in_the_middle_of_an_upload_leaves_nothing(
    served: Any, client: openai.OpenAI, rows: Callable[[int], bytes]
) -> None:
    before = [file.id for file in client.files.list()]
    folder = str(served.composed.folder.path)

    def unnamed() -> int:
        """Return how many files without a name this process holds open in the data folder."""
        links = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                links.append(str(descriptor.readlink()))
        return sum(link.startswith(folder) and link.endswith("(deleted)") for link in links)

    def becomes(n: int) -> None:
        end = time.monotonic() + 30
        while unnamed() != n:
            assert time.monotonic() < end
            time.sleep(0.005)

    becomes(0)
    port = int(served.root.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.sendall(
            b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n' + rows(10)
        )
        becomes(1)
    becomes(0)
    assert [file.id for file in client.files.list()] == before


def test_a_crash_is_a_500_with_the_request_id_and_no_details(served: Any, serve_app: Any) -> None:
    services = served.composed.services
    routes = create_routes(services)

    async def crash() -> None:
        raise ZeroDivisionError("secret")

    async def full() -> None:
        raise OSError(28, "No space left on device")

    async def other() -> None:
        raise OSError(5, "Input/output error")

    for path, endpoint in (("/v1/crash", crash), ("/v1/full", full), ("/v1/other", other)):
        routes.add_api_route(path, endpoint)
    with (
        serve_app(framed(routes, services)) as root,
        httpx2.Client(base_url=root, timeout=60, trust_env=False) as http,
        capture_logs() as logs,
    ):
        for path in ("/v1/crash", "/v1/other"):
            answer = http.get(path)
            error = error_of(answer)
            assert (answer.status_code, error["type"]) == (500, "server_error")
            assert answer.headers["x-request-id"] in error["message"]
            assert "secret" not in answer.text
            (crashed,) = (line for line in logs if line["event"] == "request.crashed" and line["path"] == path)
            assert crashed["request"] == answer.headers["x-request-id"]
            assert crashed["exc_info"] is not None
        answer = http.get("/v1/full")
        assert (answer.status_code, answer.headers["x-should-retry"]) == (507, "false")
        assert "disk is full" in error_of(answer)["message"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["model", "training_file", "validation_file", "suffix", "seed", "method", "hyperparameters", "integrations", "metadata",
     "type", "supervised", "dpo", "reinforcement", "grader", "n_epochs", "batch_size", "learning_rate_multiplier", "input"]
)  # fmt: skip
SHAPED = st.recursive(
    JSON | st.sampled_from(["auto", "supervised", "reinforcement", "tunesmith-nano", "multi", "score_model", "wandb"]),
    lambda inner: st.dictionaries(FIELDS, inner, max_size=5) | st.lists(inner, max_size=2),
    max_leaves=12,
)


@given(body=st.dictionaries(FIELDS, SHAPED, max_size=6) | JSON)
def test_no_body_makes_create_fail_on_the_servers_side(http: httpx2.Client, body: object) -> None:
    answer = http.post("/v1/fine_tuning/jobs", content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code == 400
    error_of(answer)


@given(
    content=st.binary(max_size=200), kind=st.sampled_from(["application/json", "multipart/form-data; boundary=b", "text/x"])
)
def test_no_bytes_make_any_post_fail_on_the_servers_side(http: httpx2.Client, content: bytes, kind: str) -> None:
    for path in ("/v1/files", "/v1/fine_tuning/jobs", "/v1/fine_tuning/jobs/x/cancel", "/tunesmith/v1/models"):
        answer = http.post(path, content=content, headers={"content-type": kind})
        assert 400 <= answer.status_code < 500
        error_of(answer)


@given(content=st.binary(max_size=80))
def test_no_form_makes_an_upload_fail_on_the_servers_side(http: httpx2.Client, content: bytes) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--b\r\n'
    answer = http.post("/v1/files", content=head + content, headers={"content-type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 400
    error_of(answer)
