"""A server of Weights & Biases as far as its package asks: the account, runs with their state and history, artifacts."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class KnownRun:
    """What the server knows of a run."""

    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    history: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    summary: dict[str, Any] = field(default_factory=dict[str, Any])
    #: How its processes ended, in turn: exit codes; and whether each had said that it is preempted.
    ends: list[int] = field(default_factory=list[int])
    preempting: list[bool] = field(default_factory=list[bool])


@dataclass
class KnownArtifact:
    """What the server knows of an artifact, and the bytes of its files, its manifest's too, by name."""

    fields: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    is_committed: bool = False


class Wandb(ThreadingHTTPServer):
    """Keeps the runs and artifacts that it is told of, by their ids; `asked` has the names of questions and their keys."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.clear()

    def clear(self) -> None:
        """Know nothing."""
        self.runs: dict[str, KnownRun] = {}
        self.artifacts: dict[str, KnownArtifact] = {}
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Wandb
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/graphql":
            question = json.loads(body)
            name = question.get("operationName") or question["query"]
            self.server.asked.append((name, self.headers.get("authorization")))
            answer = {
                "Viewer": self._viewer,
                "RunResumeStatus": self._status,
                "UpsertBucket": self._upsert,
                "CreateRunFiles": self._files,
                "CreateArtifact": self._artifact,
                "CreateArtifactManifest": self._manifest,
                "CreateArtifactFiles": self._artifact_files,
                "CommitArtifact": self._commit,
            }.get(name)
            told = answer(question.get("variables") or {}) if answer else None
            self._send(200, {"data": told} if told is not None else {"errors": [{"message": f"no {name} here"}]})
        elif self.path.endswith("/file_stream"):
            self._stream(self.path.split("/")[-2], json.loads(body))
            self._send(200, {})
        else:
            self._send(200, {})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        _, place, *rest = self.path.split("/", 3)
        if place == "artifacts":
            self.server.artifacts[rest[0]].files[rest[1]] = body
        self._send(200, {})

    def _stream(self, run: str, said: dict[str, Any]) -> None:
        known = self.server.runs.setdefault(run, KnownRun())
        files = said.get("files") or {}
        known.history += [json.loads(line) for line in files.get("wandb-history.jsonl", {}).get("content", [])]
        for line in files.get("wandb-summary.json", {}).get("content", []):
            known.summary = json.loads(line)
        if said.get("preempting"):
            known.preempting.append(True)
        if said.get("complete"):
            known.ends.append(said["exitcode"])

    def _viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "viewer": {"id": "u", "entity": "me", "username": "me", "email": "me@x", "flags": "{}", "teams": {"edges": []}}
        }

    def _status(self, asked: dict[str, Any]) -> dict[str, Any]:
        entity = {"id": "e", "name": asked["entity"] or "me"}
        model: dict[str, Any] = {"id": "p", "name": asked["project"], "entity": entity, "bucket": None}
        known = self.server.runs.get(asked["name"])
        if known is not None:
            model["bucket"] = {
                "id": "b", "name": asked["name"], "displayName": asked["name"], "summaryMetrics": json.dumps(known.summary),
                "logLineCount": 0, "historyLineCount": len(known.history), "eventsLineCount": 0,
                "historyTail": json.dumps([json.dumps(line) for line in known.history[-1:]]), "eventsTail": "[]",
                "config": known.fields["config"], "tags": known.fields["tags"], "notes": "", "wandbConfig": "{\"t\": 1}",
            }  # fmt: skip
        return {"model": model}

    def _upsert(self, asked: dict[str, Any]) -> dict[str, Any]:
        known = self.server.runs.setdefault(asked["name"], KnownRun())
        known.fields |= {name: value for name, value in asked.items() if value is not None}
        project = {"id": "p", "name": asked["project"], "entity": {"id": "e", "name": asked["entity"] or "me"}}
        bucket = {
            "id": "b", "name": asked["name"], "displayName": known.fields.get("displayName"), "description": None,
            "config": known.fields.get("config"), "sweepName": None, "project": project,
            "historyLineCount": len(known.history),
        }  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": not known.history}}

    def _files(self, asked: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.server.url}/storage/{name}"} for name in asked["files"]]
        return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}

    def _artifact(self, asked: dict[str, Any]) -> dict[str, Any]:
        number = f"artifact-{len(self.server.artifacts)}"
        self.server.artifacts[number] = KnownArtifact(asked["input"])
        made = {"id": number, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": made}}

    def _manifest(self, asked: dict[str, Any]) -> dict[str, Any]:
        number = asked["artifactID"]
        return {"createArtifactManifest": {"artifactManifest": {"id": number, "file": self._place(number, asked["name"])}}}

    def _artifact_files(self, asked: dict[str, Any]) -> dict[str, Any]:
        nodes = [self._place(each["artifactID"], each["name"]) for each in asked["input"]["artifactFiles"]]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _place(self, artifact: str, name: str) -> dict[str, Any]:
        url = f"{self.server.url}/artifacts/{artifact}/{name}"
        upload = {"uploadUrl": url, "uploadHeaders": [], "uploadMultipartUrls": None}
        return {"id": name, "storagePath": name, "artifact": {"id": artifact}, **upload}

    def _commit(self, asked: dict[str, Any]) -> dict[str, Any]:
        number = asked["artifactID"]
        self.server.artifacts[number].is_committed = True
        return {"commitArtifact": {"artifact": {"id": number, "digest": self.server.artifacts[number].fields["digest"]}}}

    def _send(self, status: int, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with suppress(ConnectionError):  # a process that was ended
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def far_wandb() -> Iterator[Wandb]:
    """Serve one for the length of a block."""
    server = Wandb()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
