"""Requests of every kind at once, many of them wrong and many left in the middle: no 5xx, and nothing is left of any.

`TUNESMITH_TEST_N_REQUESTS=1000` makes it longer, `TUNESMITH_TEST_SEED` another.
"""

import contextlib
import json
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import httpx2
import pytest

pytestmark = pytest.mark.slow

N_REQUESTS = int(os.environ.get("TUNESMITH_TEST_N_REQUESTS", "120"))
SEED = int(os.environ.get("TUNESMITH_TEST_SEED", "1"))
N_CLIENTS = 12
#: A few, and the connections to the database that are kept: eight, of two descriptors each.
N_DESCRIPTORS = 3 + 16
#: A base whose chat template has a place for tools.
NANO = "tunesmith-nano"
PATH = "/v1/chat/completions"
MEGABYTE = 1024 * 1024

SCHEMAS: list[Any] = [
    {"type": "boolean"},
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}}, "required": ["a"]},
    {"$defs": {"a": {"$ref": "#/$defs/a"}}, "anyOf": [{"type": "boolean"}, {"$ref": "#/$defs/a"}]},
    {"type": "string", "minLength": 30},
]
TOOL: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
#: What no field expects, or few do.
GARBAGE: list[Any] = [
    None, "", "x", "x" * 5000, -1, 0, 1, 3, 129, 10**30, -(2**63), 2**63 - 1, 0.5, 1e308, -1e308, True, False, [], [[]], {},
    {"a": 1}, ["x"], [None], {"type": "x"}, {"type": "json_schema"}, "\ud800", "\x00", {"5": 1}, {"-1": 1},
    {"99999999": 100}, {"5": 1e9}, {"type": "json_schema", "json_schema": {"name": "n", "schema": {"not": {}}}},
    {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMAS[2]}}, [{"role": "user"}],
    [{"role": "x", "content": "y"}], [{"role": "user", "content": [{"type": "text"}]}],
    [{"role": "tool", "content": "x", "tool_call_id": "y"}], [TOOL, TOOL],
]  # fmt: skip
FIELDS = (
    "model", "messages", "tools", "tool_choice", "parallel_tool_calls", "n", "max_tokens", "max_completion_tokens", "top_p",
    "temperature", "stop", "seed", "response_format", "stream", "stream_options", "logprobs", "top_logprobs", "logit_bias",
    "presence_penalty", "frequency_penalty", "reasoning_effort", "metadata", "user", "store", "no_such_field", "functions",
    "function_call", "prediction", "modalities", "audio", "service_tier", "verbosity",
)  # fmt: skip
BROKEN: list[bytes] = [
    b"", b"{", b"null", b"[]", b'"x"', b"{}", b"\xff\xfe", b'{"model": NaN}', b"[" * 2000,
    b'{"messages": ' + b"[" * 600 + b"]" * 600 + b"}",
]  # fmt: skip


@dataclass
class Crowd:
    """What came of the requests."""

    root: str
    models: list[str]
    came: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def ask(self, chance: random.Random, http: httpx2.Client) -> None:
        """Send a request, read some of what comes, and note it."""
        kind = chance.choices(("right", "wrong", "broken", "leaves", "hangs up"), (4, 4, 1, 4, 1))[0]
        body = self.right(chance)
        if kind == "wrong":
            for name in chance.sample(FIELDS, chance.choice((1, 1, 2))):
                body[name] = chance.choice(GARBAGE)
        content = json.dumps(body).encode()
        if kind == "broken":
            content = chance.choice(BROKEN)
        if kind == "hangs up":
            self.hang_up(chance, content)
            return
        n_read = chance.randrange(6) if kind == "leaves" else None
        timeout = chance.uniform(0.01, 0.4) if kind == "leaves" and not body.get("stream") else 120.0
        try:
            with http.stream(
                "POST", PATH, content=content, headers={"content-type": "application/json"}, timeout=timeout
            ) as answer:
                self.note(kind, answer, n_read, content)
        except httpx2.TimeoutException:
            if kind != "leaves":
                self.faults.append(f"nothing within {timeout} s: {content[:500]!r}")
            self.came["left"] += 1
        except httpx2.TransportError as error:
            self.faults.append(f"{error!r}: {content[:500]!r}")

    def note(self, kind: str, answer: httpx2.Response, n_read: int | None, content: bytes) -> None:
        self.came[f"{kind} {answer.status_code}"] += 1
        if answer.status_code >= 500 or (kind == "right" and answer.status_code not in (200, 429)):
            self.faults.append(f"{answer.status_code} {answer.read()!r} to {content[:1500]!r}")
        elif answer.status_code != 200:
            error = json.loads(answer.read())["error"]
            assert set(error) == {"message", "type", "param", "code"}
        elif "event-stream" not in answer.headers["content-type"]:
            assert json.loads(answer.read())["object"] == "chat.completion"
        else:
            for number, line in enumerate(answer.iter_lines()):
                if '"server_error"' in line:
                    self.faults.append(f"{line} to {content[:1500]!r}")
                if number == n_read:
                    self.came["left"] += 1
                    return

    def hang_up(self, chance: random.Random, content: bytes) -> None:
        """Leave at the worst moment: in the middle of a request, or just after it, with or without a farewell."""
        address = urlparse(self.root)
        with socket.create_connection((address.hostname, address.port)) as raw:
            head = f"POST {PATH} HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
            whole = f"{head}content-length: {len(content)}\r\n\r\n".encode() + content
            raw.sendall(whole[: chance.choice((5, len(whole) // 2, len(whole) - 1, len(whole)))])
            time.sleep(chance.choice((0, 0.05)))
            if chance.random() < 0.5:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
        self.came["hung up"] += 1

    def right(self, chance: random.Random) -> dict[str, Any]:
        """Return a request that the service takes."""
        system = {"role": "system", "content": "You are brief, and say json where you mean it."}
        turns = [{"role": "user", "content": chance.choice(("Hello", "Count to ten", "1" * 60))}]
        body: dict[str, Any] = {
            "model": chance.choice(self.models),
            "messages": [system, *turns] if chance.random() < 0.7 else turns,
            chance.choice(("max_tokens", "max_completion_tokens")): chance.choice((1, 5, 30, 60)),
            "stream": chance.random() < 0.5,
        }
        wishes: dict[str, Any] = {
            "n": chance.choice((1, 2, 5)),
            "temperature": chance.choice((0, 0.7, 2)),
            "top_p": chance.choice((0.1, 1)),
            "seed": chance.randrange(9),
            "stop": chance.choice(("e", ["a", "b"])),
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": chance.choice(SCHEMAS[:2])}},
            "tools": [TOOL],
            "logit_bias": {"5": -100, "70": 3},
            "presence_penalty": 1.5,
            "frequency_penalty": -0.5,
            "logprobs": True,
        }
        names = chance.sample(sorted(wishes), chance.randrange(5))
        if "tools" in names and ("response_format" in names or body["model"] != NANO):
            names.remove("tools")
        body |= {name: wishes[name] for name in names}
        if body["stream"] and chance.random() < 0.3:
            body["stream_options"] = {"include_usage": True}
        return body


def rush(crowd: Crowd, seed: int, n: int) -> None:
    """Send so many requests, by clients at once."""
    numbers = iter(range(n))
    lock = threading.Lock()

    def client() -> None:
        with httpx2.Client(base_url=crowd.root, trust_env=False, verify=False) as http:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                try:
                    crowd.ask(random.Random(f"{seed} {number}"), http)
                except Exception as error:  # noqa: BLE001 - a client that stops would go unseen
                    crowd.faults.append(f"request {number}: {error!r}")

    clients = [threading.Thread(target=client) for _ in range(N_CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()


def held(pid: int) -> dict[str, int]:
    """Return what a process holds of what could leak."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": int(status["Threads"]),
        "megabytes": int(status["VmRSS"].split()[0]) // 1024,
    }


def test_whatever_is_asked_and_whoever_leaves_there_is_no_5xx_and_nothing_is_left(
    make_server: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    server = make_server(sampler_queue=6)
    job = server.create(server.upload(10), n_epochs=1)
    tuned = server.reaches(job, "succeeded").fine_tuned_model
    root = server.url.removesuffix("/v1")

    def samplers() -> list[dict[str, Any]]:
        with httpx2.Client(base_url=root, trust_env=False, verify=False) as http:
            return http.get("/tunesmith/v1/samplers").json()["data"]

    def at_rest() -> bool:
        return all((each["rows"], each["waiting"]) == (0, 0) for each in samplers())

    crowd = Crowd(root, ["tiny", tuned, NANO])
    rush(crowd, SEED + 1_000_000, max(60, N_REQUESTS // 5))  # what is made once is made now
    eventually(at_rest, "every row is free again")
    pids = [server.process.pid, *(each["pid"] for each in samplers())]
    assert len(pids) == 3
    before = [held(pid) for pid in pids]
    rush(crowd, SEED, N_REQUESTS)
    eventually(at_rest, "every row is free again")
    assert [server.process.pid, *(each["pid"] for each in samplers())] == pids, "nobody died"

    def settled() -> bool:
        now = [held(pid) for pid in pids]
        return all(
            after["descriptors"] <= then["descriptors"] + N_DESCRIPTORS and after["threads"] <= then["threads"] + N_CLIENTS
            for then, after in zip(before, now, strict=True)
        )

    with contextlib.suppress(pytest.fail.Exception):
        eventually(settled, "descriptors and threads are as they were", within_s=30)
    after = [held(pid) for pid in pids]
    print(SEED, N_REQUESTS, dict(crowd.came), before, after)  # noqa: T201 - shown where it fails, or with -s
    assert crowd.faults == []
    assert settled(), (before, after)
    for then, now in zip(before, after, strict=True):
        assert now["megabytes"] <= then["megabytes"] + 48, (before, after)
    assert {"right 200", "wrong 400", "broken 400", "left", "hung up"} <= crowd.came.keys(), crowd.came
