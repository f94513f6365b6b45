"""A server upstream played by the tests: OpenAI's wire over real sockets, models of several abilities, every way to fail."""

import json
import re
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

N_PROMPT, N_COMPLETION, N_CACHED, N_REASONING = 11, 7, 3, 2
USAGE = {
    "prompt_tokens": N_PROMPT,
    "completion_tokens": N_COMPLETION,
    "total_tokens": N_PROMPT + N_COMPLETION,
    "prompt_tokens_details": {"cached_tokens": N_CACHED},
    "completion_tokens_details": {"reasoning_tokens": N_REASONING},
}


@dataclass
class FarModel:
    """What a model can do; one that does not heed takes every field and forgets it."""

    chat: bool = True
    structured: bool = True
    images: bool = False
    audio: bool = False
    efforts: tuple[str, ...] = ()
    embeddings: bool = False
    limit: str = "max_completion_tokens"
    heeds: bool = True


class FarServer(ThreadingHTTPServer):
    """Models by name. `acts` happen to the next requests, one to each, in place of an answer."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.models: dict[str, FarModel] = {}
        self.lists = True
        self.key: str | None = None
        self.acts: deque[Act] = deque()
        #: What the judge decides.
        self.result: object = 0.75
        self.label = "good"
        self.vectors: dict[str, list[float]] = {}
        self.asked: list[dict[str, Any]] = []
        #: Requests that are being answered, and the most there ever were; answers wait for `gate`.
        self.n_now = self.n_most = 0
        self.counting = threading.Lock()
        self.gate = threading.Event()
        self.gate.set()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def judged(self) -> list[dict[str, Any]]:
        """Return the bodies of questions of graders, without those of probes."""
        bodies = [asked["body"] for asked in self.asked if asked["path"].endswith("/chat/completions")]
        return [body for body in bodies if body.get("response_format", {}).get("json_schema", {}).get("name") == "grade"]


class _Answer(BaseHTTPRequestHandler):
    server: FarServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        if not self._knows_key():
            return
        if self.path != "/v1/models" or not self.server.lists:
            self.error(404, "no such path")
            return
        self.send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.server.models]})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        self.body = body = json.loads(raw)
        asked = {"path": self.path, "body": body, "authorization": self.headers.get("authorization"), "raw": raw}
        self.server.asked.append(asked)
        with self.server.counting:
            self.server.n_now += 1
            self.server.n_most = max(self.server.n_most, self.server.n_now)
        try:
            self.server.gate.wait(60)
            self._route(body)
        finally:
            with self.server.counting:
                self.server.n_now -= 1

    def _route(self, body: dict[str, Any]) -> None:
        if not self._knows_key():
            return
        if self.server.acts:
            self.server.acts.popleft()(self)
            return
        model = self.server.models.get(body["model"])
        if model is None:
            self.error(404, f"The model {body['model']} does not exist", "model_not_found")
        elif self.path == "/v1/chat/completions" and model.chat:
            self._chat(model, body)
        elif self.path == "/v1/embeddings" and model.embeddings:
            rows = [{"index": n, "embedding": self.server.vectors.get(t, [1.0, 0.0])} for n, t in enumerate(body["input"])]
            self.send(200, {"object": "list", "data": rows[::-1], "model": body["model"], "usage": {"prompt_tokens": 2}})
        else:
            self.error(404, "this model does not do that")

    def _chat(self, model: FarModel, body: dict[str, Any]) -> None:
        parts = [part for message in body["messages"] if isinstance(message["content"], list) for part in message["content"]]
        kinds = {part["type"] for part in parts}
        effort = body.get("reasoning_effort")
        if model.heeds:
            other = ({"max_tokens", "max_completion_tokens"} - {model.limit}) & set(body)
            if other:
                return self.error(400, f"unknown field {other}")
            if "image_url" in kinds and not model.images:
                return self.error(400, "this model takes no images")
            if "input_audio" in kinds and not model.audio:
                return self.error(500, "audio input is not supported")
            if effort is not None and effort not in model.efforts:
                return self.error(400, "this model takes no such reasoning_effort")
            if "response_format" in body and not model.structured:
                return self.error(400, "this model knows no response_format")
        text = "It is red." if "image_url" in kinds else "yes"
        if model.heeds and "response_format" in body:
            text = json.dumps(self._forced(body["response_format"]["json_schema"]))
        return self.say(text)

    def _forced(self, schema: dict[str, Any]) -> dict[str, Any]:
        assert schema["strict"] is True
        if schema["name"] == "letter":
            return {"letter": "q"}
        result = schema["schema"]["properties"]["result"]
        steps = [{"description": "I looked", "conclusion": "so it is"}]
        return {"steps": steps, "result": self.server.label if "enum" in result else self.server.result}

    def _knows_key(self) -> bool:
        given = self.headers.get("authorization")
        if self.server.key is None or given == f"Bearer {self.server.key}":
            return True
        self.error(401, f"Incorrect API key provided: {given}", "invalid_api_key")
        return False

    def say(self, text: str | None, *, end: str = "stop", refusal: str | None = None) -> None:
        if self.body.get("stream"):
            options = self.body.get("stream_options") or {}
            self.stream([*said(text or "", end=end), *([{"choices": [], "usage": USAGE}] if options else [])])
            return
        message = {"role": "assistant", "content": text, "refusal": refusal}
        self.send(
            200,
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "model": f"{self.server.asked[-1]['body']['model']}-2026-01-01",
                "choices": [{"index": 0, "message": message, "finish_reason": end}],
                "usage": USAGE,
            },
        )

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.end_headers()
        self.close_connection = True

    def event(self, data: object) -> None:
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        self.wfile.write(f"data: {text}\n\n".encode())

    def stream(self, chunks: Iterable[object], *, done: bool = True) -> None:
        self.begin_stream()
        for chunk in chunks:
            self.event(chunk)
        if done:
            self.event("[DONE]")

    def error(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        self.send(status, {"error": {"message": message, "type": "invalid_request_error", "code": code}}, **headers)

    def send(self, status: int, body: object, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


Act = Callable[[_Answer], None]


def said(text: str, *, index: int = 0, end: str | None = "stop") -> list[dict[str, Any]]:
    """Return the chunks of a choice: its role, its words one by one, why it ended."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": word} for word in words(text))]
    chunks = [{"choices": [{"index": index, "delta": delta, "finish_reason": None}]} for delta in deltas]
    return [*chunks, *([{"choices": [{"index": index, "delta": {}, "finish_reason": end}]}] if end else [])]


def words(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


def streams(*chunks: object, done: bool = True) -> Act:
    """Answer these chunks, as they are."""
    return lambda answer: answer.stream(chunks, done=done)


def status(number: int, message: str = "not now", code: str | None = None, **headers: str) -> Act:
    """Answer an error; the next try may come at once, unless a header says otherwise."""
    return lambda answer: answer.error(number, message, code, **{"retry_after": "0", **headers})


def says(text: str | None, *, end: str = "stop", refusal: str | None = None) -> Act:
    """Answer a chat completion of this text."""
    return lambda answer: answer.say(text, end=end, refusal=refusal)


def sends(body: object, number: int = 200) -> Act:
    """Answer this body."""
    return lambda answer: answer.send(number, body)


def cuts(answer: _Answer) -> None:
    """Promise more than comes."""
    answer.send_response(200)
    answer.send_header("content-length", "1000")
    answer.end_headers()
    answer.wfile.write(b'{"id": ')
    answer.close_connection = True


def resets(answer: _Answer) -> None:
    """Close the connection without an answer."""
    answer.close_connection = True
    answer.connection.shutdown(socket.SHUT_RDWR)


def hangs(answer: _Answer) -> None:
    """Say nothing until the test is over."""
    answer.server.released.wait(60)
    answer.close_connection = True


@contextmanager
def far_server() -> Iterator[FarServer]:
    """Serve for the length of a block."""
    server = FarServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
