"""A database; a hub served on loopback, as far as a download needs it; a scheduler over made-up processes."""

import hashlib
import json
import os
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from near.database import make_database
from tunesmith.blobs.local import LocalBlobs
from tunesmith.core import environment
from tunesmith.core.channel import Report, Task
from tunesmith.core.clock import SystemClock
from tunesmith.core.ids import Ids
from tunesmith.core.settings import Settings
from tunesmith.domain.file import File
from tunesmith.domain.job import Job
from tunesmith.domain.model import Base
from tunesmith.domain.ports import Handle, Outcome
from tunesmith.domain.scope import DEFAULT_ORGANIZATION, DEFAULT_PROJECT, Everywhere, Project
from tunesmith.domain.states import Status
from tunesmith.services.attempts import Attempts
from tunesmith.services.limits import Limits
from tunesmith.services.placement import Placement
from tunesmith.services.scheduler import Scheduler
from tunesmith.store import events, files, jobs, models
from tunesmith.store.session import Database

SCOPE = Project(DEFAULT_PROJECT)
BASES = Everywhere("a test registers a base")
ALL = Everywhere("a test looks at everything")

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


@pytest.fixture(autouse=True)
def _children_tell_their_coverage_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where coverage is measured, let it through the allow-list of the children's environment."""
    measuring = {name for name in os.environ if name.startswith("COVERAGE_PROCESS_")}
    monkeypatch.setattr(environment, "_NAMES", environment._NAMES | measuring)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Return a fresh SQLite database with every table."""
    made = Database(make_database(tmp_path / "tunesmith.db"), clock=SystemClock(), ids=Ids(random.Random(0)))
    yield made
    made.close()


@dataclass
class ToyMachine:
    """An executor over made-up processes: what the port promises, without the time that real ones take."""

    living: dict[int, Task] = field(default_factory=dict[int, Task])
    orphans: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    outcomes: dict[tuple[str, int], Outcome] = field(default_factory=dict[tuple[str, int], Outcome])
    unsent: dict[tuple[str, int], list[Report]] = field(default_factory=dict[tuple[str, int], list[Report]])
    noted: dict[tuple[str, int], Handle] = field(default_factory=dict[tuple[str, int], Handle])
    started: list[Task] = field(default_factory=list[Task])
    stopped: list[int] = field(default_factory=list[int])
    swept: list[str] = field(default_factory=list[str])
    refuses: set[str] = field(default_factory=set[str])
    on_start: Any = None

    def start(self, task: Task) -> Handle:
        if task.job in self.refuses:
            raise OSError(28, "No space left on device")
        self.started.append(task)
        pid = len(self.started)
        self.living[pid] = task
        self.noted[(task.job, task.attempt)] = Handle(pid, 1, "boot")
        if self.on_start is not None:
            self.on_start(task)
        return Handle(pid, 1, "boot")

    def find(self, job_id: str, attempt: int) -> Handle | None:
        return self.noted.get((job_id, attempt))

    def stop(self, handle: Handle) -> None:
        self.stopped.append(handle.pid)
        self.living.pop(handle.pid, None)

    def alive(self, handle: Handle) -> bool:
        return handle.pid in self.living

    def sweep(self, job_id: str, attempt: int | None = None) -> int:
        self.swept.append(job_id)
        found = {key for key in self.orphans if key[0] == job_id}
        self.orphans -= found
        self.living = {pid: task for pid, task in self.living.items() if task.job != job_id}
        return len(found)

    def strays(self) -> frozenset[tuple[str, int]]:
        return frozenset(self.orphans | {(task.job, task.attempt) for task in self.living.values()})

    def outcome(self, job_id: str, attempt: int) -> Outcome | None:
        return self.outcomes.get((job_id, attempt))

    def rest(self, job_id: str, attempt: int) -> list[Report]:
        return self.unsent.get((job_id, attempt), [])


class Rig:
    """A scheduler that ticks when told."""

    def __init__(self, tmp_path, **settings: Any) -> None:
        self.clock = SystemClock()
        self.ids = Ids(random.Random(3))
        self.db = Database(make_database(tmp_path / "t.db"), clock=self.clock, ids=self.ids)
        self.settings = Settings(data_dir=tmp_path, **settings)
        self.blobs = LocalBlobs(tmp_path / "blobs")
        self.machine = ToyMachine()
        self.socket = tmp_path / "c.sock"
        self.restart()
        base = Base(
            name="nano", kind="embedded", source="", path="/bases/nano", created_at=0.0, architecture="Llama",
            context_length=512, n_parameters=1, weights_bytes=1, pins={"weights": "w"},
        )  # fmt: skip
        with self.db.begin() as tx:
            models.add_base(tx, BASES, base)

    def restart(self) -> None:
        """Begin with nothing in memory, as a server does."""
        common = {"db": self.db, "clock": self.clock, "ids": self.ids, "settings": self.settings}
        self.attempts = Attempts(blobs=self.blobs, on_change=lambda: None, **common)
        self.limits = Limits(db=self.db, clock=self.clock, settings=self.settings)
        own = {"db": self.db, "clock": self.clock, "ids": self.ids, "limits": self.limits}
        placement = Placement(attempts=self.attempts, blobs_url=self.blobs.url, socket=self.socket, **own)
        self.scheduler = Scheduler(placement=placement, attempts=self.attempts, executor=self.machine, clock=self.clock)

    def file(self, name: str, project: str = DEFAULT_PROJECT) -> str:
        with self.db.begin() as tx:
            files.add(
                tx, Project(project),
                File(name, project, DEFAULT_ORGANIZATION, 0.0, "f.jsonl", "fine-tune", 1, "s", f"files/{name}"),
            )  # fmt: skip
        return name

    def put(self, name: str, **changes: Any) -> str:
        blank = Job(
            id=name, project_id=DEFAULT_PROJECT, organization_id=DEFAULT_ORGANIZATION, model="nano", base="nano",
            start_adapter=None, training_file="file-t", validation_file=None, suffix=None, seed=1, method="supervised",
            method_config={"hyperparameters": {}}, resolved=None, integrations=[], metadata=None,
            created_at=self.clock.now(), pins={"weights": "w"},
        )  # fmt: skip
        job = replace(blank, **changes)
        with self.db.begin() as tx:
            jobs.add(tx, Project(job.project_id), job)
        return name

    def queued(self, name: str, **changes: Any) -> str:
        ready = {"status": Status.QUEUED, "attempt": 1, "released_at": 1.0, "queued_at": 1.0, "resolved": {"n_epochs": 1}}
        return self.put(name, **{**ready, **changes})

    def job(self, name: str) -> Job:
        with self.db.read() as tx:
            found = jobs.get(tx, ALL, name)
        assert found is not None
        return found

    def texts(self, name: str) -> list[str]:
        with self.db.read() as tx:
            return [event.message for event in events.page(tx, ALL, name, limit=100)[0]][::-1]

    def report(self, task: Task, kind: str, key: str, /, **data: Any) -> None:
        self.attempts.report(task.job, task.attempt, task.token, [Report(kind, task.job, task.attempt, key, 1.0, data)])

    def die(self, task: Task, outcome: Outcome | None = None) -> None:
        self.machine.living = {pid: other for pid, other in self.machine.living.items() if other is not task}
        if outcome is not None:
            self.machine.outcomes[(task.job, task.attempt)] = outcome

    def ticks(self, number: int) -> None:
        for _ in range(number):
            self.scheduler.tick()


@pytest.fixture
def make_rig(tmp_path):
    made = []

    def make(**settings):
        made.append(Rig(tmp_path, **settings))
        return made[-1]

    yield make
    for rig in made:
        rig.db.close()


@pytest.fixture
def rig(make_rig):
    made = make_rig()
    made.file("file-t")
    return made
