"""A served app on a free port with a data folder of its own, and the official clients as its customers."""

import asyncio
import io
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import structlog
from jsonschema import Draft202012Validator
from starlette.types import ASGIApp, Receive, Scope, Send

from far import FarServer, far_server
from far.judging import MODELS, SEEN, Gallery
from laws.leaks import tagged, watched
from near.database import make_database
from tunesmith.api.app import create_app
from tunesmith.api.internal import create_internal_app
from tunesmith.bootstrap import Composed, compose
from tunesmith.cli.serve import Door, listen
from tunesmith.core.settings import Settings
from tunesmith.domain.scope import Project

#: Small enough that a test can go over them.
MAX_FILE_BYTES = 3 * 1024 * 1024
MAX_BODY_BYTES = 512 * 1024
SCHEMA = Path(__file__).parent / "schema"


@dataclass(frozen=True)
class Served:
    """A server under test, and its insides for what no request can bring about."""

    base_url: str
    composed: Composed

    @property
    def scope(self) -> Project:
        return Project("proj_default", "org-default")

    @property
    def root(self) -> str:
        return self.base_url.removesuffix("/v1")


@pytest.fixture(scope="session", autouse=True)
def _the_servers_log_is_not_what_a_command_prints() -> Iterator[None]:
    """Keep the log of servers in this process off standard output: what a command prints beside them is read."""
    with Path(os.devnull).open("w") as nowhere:
        structlog.configure(logger_factory=structlog.WriteLoggerFactory(nowhere))
        yield
        structlog.reset_defaults()


@contextmanager
def serving(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """Serve an app in a thread and yield its root."""
    with closing(listen("127.0.0.1", port)) as listener:
        door = Door(app)
        thread = threading.Thread(target=lambda: door.run(sockets=[listener]), daemon=True)
        thread.start()
        while not door.started:
            assert thread.is_alive()
            threading.Event().wait(0.002)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            door.should_exit = True
            thread.join()


def _both_doors(composed: Composed) -> ASGIApp:
    """Return the public app and the attempts' one, on one loop as they are in a server, told apart by the path."""
    outer, inner = create_app(composed.services), create_internal_app(composed.attempts, composed.tools)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (inner if scope["path"].startswith("/internal/") else outer)(scope, receive, send)

    return app


@contextmanager
def house(folder: Path, *, inside: bool = False, port: int = 0, **settings: Any) -> Iterator[Served]:
    """Serve a data folder, with `inside` the attempts' door too; nothing is scheduled: jobs stay as they were created."""
    make_database(folder / "tunesmith.db")
    composed = compose(
        Settings(
            data_dir=folder,
            **{"max_file_bytes": MAX_FILE_BYTES, "max_body_bytes": MAX_BODY_BYTES, "sampler_warm": False, **settings},
        )
    )
    composed.services.bases.start()
    try:
        with serving(_both_doors(composed) if inside else create_app(composed.services), port) as root:
            yield Served(f"{root}/v1", composed)
    finally:
        asyncio.run(composed.close())


@pytest.fixture(scope="session")
def open_house() -> Callable[..., AbstractContextManager[Served]]:
    """Return a function that serves a data folder."""
    return house


@pytest.fixture(scope="session")
def serve_app() -> Callable[[ASGIApp], AbstractContextManager[str]]:
    """Return a function that serves an app for the length of a block."""
    return serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with house(tmp_path_factory.mktemp("house")) as served:
        yield served


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Served]:
    """A server that no other test has used."""
    with house(tmp_path / "data") as served:
        yield served


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(served: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def http(served: Served) -> Iterator[httpx2.Client]:
    """For what the official client would never send."""
    with httpx2.Client(base_url=served.root, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def gallery() -> Iterator[Gallery]:
    server = Gallery()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def _far() -> Iterator[FarServer]:
    with far_server() as server:
        server.models = dict(SEEN)
        yield server


@pytest.fixture
def far(_far: FarServer) -> FarServer:
    """A server upstream, with nothing left of another test."""
    _far.acts.clear()
    _far.asked.clear()
    _far.result, _far.label, _far.key, _far.lists = 0.75, "good", None, True
    return _far


@pytest.fixture(scope="module")
def judging(tmp_path_factory: pytest.TempPathFactory, _far: FarServer, gallery: Gallery) -> Iterator[Served]:
    """A server that knows every model of the one upstream."""
    with (
        house(tmp_path_factory.mktemp("house"), inside=True, image_hosts=f"pictures.test, {gallery.host}") as served,
        httpx2.Client(base_url=served.root, timeout=60, trust_env=False) as http,
    ):
        for name in SEEN:
            added = http.post(MODELS, json={"name": name, "upstream": {"url": _far.url}})
            assert added.status_code == 200, added.text
        yield served


def _rows(n: int = 10) -> bytes:
    lines = [
        {"messages": [{"role": "user", "content": f"What is {i} plus one?"}, {"role": "assistant", "content": str(i + 1)}]}
        for i in range(n)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@pytest.fixture(scope="session")
def rows() -> Callable[[int], bytes]:
    """Return a function that makes a small training file."""
    return _rows


@pytest.fixture(scope="module")
def training_file(client: openai.OpenAI) -> str:
    return client.files.create(file=("rows.jsonl", io.BytesIO(_rows())), purpose="fine-tune").id


def _read(name: str) -> Any:
    return json.loads((SCHEMA / name).read_text())


@pytest.fixture
def published() -> dict[str, Any]:
    return _read("responses.json")


@pytest.fixture
def differences() -> list[dict[str, Any]]:
    return _read("differences.json")


def validator(name: str, without: str = "") -> Draft202012Validator:
    """Return the validator of a response, amended by every difference but the one called `without`."""
    document = _read("responses.json")
    for difference in _read("differences.json"):
        if difference["name"] != without:
            *path, last = difference["at"]
            place = document["$defs"]
            for step in path:
                place = place[step]
            place[last] = difference["schema"]
    return Draft202012Validator({"$ref": f"#/$defs/{name}", **document})


@pytest.fixture(scope="session")
def faults() -> Callable[..., list[str]]:
    """Return a function that tells where a response departs from its schema."""

    def tell(body: object, name: str, without: str = "") -> list[str]:
        return [f"{error.json_path}: {error.message}" for error in validator(name, without).iter_errors(body)]

    return tell


@pytest.fixture(scope="session")
def conforms(faults: Callable[..., list[str]]) -> Callable[[object, str], None]:
    """Return a function that asserts a response's conformity; it takes a body or what the client made of it."""

    def check(body: Any, name: str) -> None:
        plain = body.to_dict() if hasattr(body, "to_dict") else body
        assert faults(plain, name) == []

    return check


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_left_of_a_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Watch servers and clients that several tests share, from before the first to after the last."""
    with watched(tmp_path_factory.mktemp("none")):
        yield


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    with watched(tmp_path, tagged, served=True):
        yield
