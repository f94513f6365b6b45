"""Clients that keep the server waiting are cut off; those that it keeps waiting, and steady ones, are not."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from tunesmith.api.protocol import LEAST_BYTES_S, N_HEAD_BYTES
from tunesmith.cli.serve import Door, listen

PATIENCE_S = 0.6
LARGE = 4 * 1024 * 1024


class App:
    """Reads a body, takes its time where the path says so, and answers with a little or much."""

    def __init__(self) -> None:
        self.left = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        import asyncio

        while (message := await receive())["type"] == "http.request" and message.get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            self.left.set()
        if scope["path"] == "/late":
            await asyncio.sleep(PATIENCE_S * 2.5)
        length = LARGE if scope["path"] == "/large" else 2
        headers = [(b"content-length", str(length).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * length})


@pytest.fixture(scope="module")
def app() -> App:
    return App()


@pytest.fixture(scope="module")
def port(app: App) -> Iterator[int]:
    with closing(listen("127.0.0.1", 0)) as listener:
        door = Door(app, patience_s=PATIENCE_S)
        thread = threading.Thread(target=lambda: door.run(sockets=[listener]), daemon=True)
        thread.start()
        while not door.started:
            time.sleep(0.002)
        yield listener.getsockname()[1]
        door.should_exit = True
        thread.join()


def line_to(port: int, *, buffer: int | None = None) -> socket.socket:
    line = socket.socket()
    if buffer is not None:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    line.settimeout(10)
    line.connect(("127.0.0.1", port))
    return line


def rest_of(line: socket.socket) -> bytes:
    answer = b""
    try:
        while piece := line.recv(65536):
            answer += piece
    except ConnectionResetError:
        pass
    return answer


def error_in(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"x-request-id: req_" in head
    assert b"connection: close" in head.lower()
    return {"status": int(head.split()[1]), **json.loads(body)["error"]}


def test_slow_clients_are_cut_off(port: int, app: App) -> None:
    """All at once, since each takes the server's patience."""
    silent, dripping, body, deaf = line_to(port), line_to(port), line_to(port), line_to(port, buffer=4096)
    dripping.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ")
    body.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
    deaf.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
    began = time.monotonic()
    for _ in range(8):
        for line in (dripping, body):
            try:
                line.send(b"a")
            except OSError:
                break
        time.sleep(PATIENCE_S / 4)
    for line, what in ((dripping, "head"), (body, "body")):
        error = error_in(rest_of(line))
        assert (error["status"], error["type"]) == (408, "invalid_request_error")
        assert error["message"].startswith(f"The {what} of the request did not come within {PATIENCE_S} s")
    assert rest_of(silent) == b""
    assert len(rest_of(deaf)) < LARGE
    assert app.left.wait(5)
    assert time.monotonic() - began < 8
    for line in (silent, dripping, body, deaf):
        line.close()


def test_those_who_wait_or_are_steady_are_served(port: int) -> None:
    late, steady, taking = line_to(port), line_to(port), line_to(port, buffer=4096)
    late.sendall(b"GET /late HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    n_bytes = int(LEAST_BYTES_S * PATIENCE_S * 12)
    steady.sendall(b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % n_bytes)
    taking.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    n_taken = 0
    for _ in range(12):
        steady.sendall(b"a" * (n_bytes // 12))
        n_taken += len(taking.recv(65536))
        time.sleep(PATIENCE_S / 4)
    assert rest_of(steady).endswith(b"\r\n\r\nxx")
    assert n_taken + len(rest_of(taking)) > LARGE
    assert rest_of(late).endswith(b"\r\n\r\nxx")
    for line in (late, steady, taking):
        line.close()


def test_a_head_over_the_limit_is_told_so(port: int) -> None:
    with line_to(port) as line:
        line.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nx-large: " + b"a" * N_HEAD_BYTES)
        error = error_in(rest_of(line))
    assert (error["status"], str(N_HEAD_BYTES) in error["message"]) == (431, True)
