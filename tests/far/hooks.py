"""Somebody's server that takes webhooks, over real sockets: it answers what the test says, and keeps what came."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver(ThreadingHTTPServer):
    """Answers what the test says, in turn, and keeps what came: headers and body."""

    daemon_threads = True

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.name = name
        self.came: list[tuple[dict[str, str], bytes]] = []
        self.answers: Callable[[int], int] = lambda _: 200
        self.slow_s = 0.0

    @property
    def host(self) -> str:
        return f"{self.name}:{self.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/in?a=b"


class _Hook(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        time.sleep(self.server.slow_s)
        self.server.came.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.answers(len(self.server.came)))
        self.send_header("location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def receiving(name: str = "localhost") -> Iterator[Receiver]:
    """Serve one for the length of a block."""
    server = Receiver(name)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
