"""A database, and a hub served on loopback: the part of the Hugging Face hub's HTTP that a download needs."""

import hashlib
import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tunesmith.core.clock import SystemClock
from tunesmith.core.ids import Ids
from tunesmith.store.session import Database

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Repositories by id; set `token` to have them gated, `stall` to hold weights back after their first byte."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.repositories: dict[str, Path] = {}
        self.token: str | None = None
        self.stall = threading.Event()
        self.stall.set()
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._route(body=False)

    def do_GET(self) -> None:
        self._route(body=True)

    def log_message(self, format: str, *args: object) -> None:
        self.server.asked.append(f"{self.command} {self.path}")

    def _route(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        for name, folder in self.server.repositories.items():
            if path.startswith((f"/api/models/{name}", f"/{name}/resolve/")):
                if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
                    return self._send(401, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"}, body=body)
                if path.startswith("/api/"):
                    return self._api(name, folder, path)
                return self._file(folder / path.split("/resolve/", 1)[1].partition("/")[2], body=body)
        return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body=body)

    def _api(self, name: str, folder: Path, path: str) -> None:
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        names = [str(file.relative_to(folder)) for file in files]
        if "/tree/" in path:
            listing = [
                {"type": "file", "path": path, "size": file.stat().st_size, "oid": _oid(file)}
                for path, file in zip(names, files, strict=True)
            ]
            return self._send(200, json.dumps(listing).encode())
        siblings = [{"rfilename": path, "size": file.stat().st_size} for path, file in zip(names, files, strict=True)]
        info = {"id": name, "modelId": name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}
        return self._send(200, json.dumps(info).encode())

    def _file(self, file: Path, *, body: bool) -> None:
        if not file.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body=body)
        headers = {"ETag": f'"{_oid(file)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        slow = body and file.suffix == ".safetensors"
        return self._send(200, file.read_bytes(), headers, body=body, slow=slow)

    def _send(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, *, body: bool = True, slow: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body and slow:
            self.wfile.write(content[: len(content) // 2])
            self.server.stall.wait(60)
            content = content[len(content) // 2 :]
        if body:
            self.wfile.write(content)


def _oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Start the hub, and have this process's children take it for the real one."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    yield server
    server.stall.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Return a fresh SQLite database with every table."""
    made = Database(f"sqlite:///{tmp_path / 'tunesmith.db'}", clock=SystemClock(), ids=Ids(random.Random(0)))
    made.migrate()
    yield made
    made.close()
