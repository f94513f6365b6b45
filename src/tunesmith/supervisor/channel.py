"""The supervisor's way to the server: one HTTP request a message over the Unix socket, by hand to stay small."""

import json
import socket
from typing import Any

from tunesmith.core.channel import PROTOCOL

_LARGEST_ANSWER = 1 << 20


class Unreachable(Exception):
    """The server does not answer now, or answers that it cannot; the same message may be sent again."""


class Away(Unreachable):
    """Nobody listens at the socket: no server is there at present."""


class Refused(Exception):
    """The server will not have this attempt any more (fenced), or not its messages; nothing is to be sent again."""


class Channel:
    """The attempt's door at the server. Thread-safe: every request has a connection of its own."""

    def __init__(self, socket_path: str, *, job: str, attempt: int, token: str, timeout_s: float = 30.0) -> None:
        self._socket_path = socket_path
        self._root = f"/internal/v1/attempts/{job}/{attempt}"
        self._token = token
        self._timeout_s = timeout_s

    def send(self, lines: list[bytes], *, timeout_s: float | None = None) -> str:
        """Deliver reports (each one line of JSON) and return what the job's owner wants: `run`, `pause`.

        Raises:
            Away: nobody listens.
            Unreachable: nothing came back, or an error of the server's own (5xx).
            Refused: the attempt is fenced, or the message is not accepted (4xx).
        """
        body = b'{"version":%d,"reports":[%s]}' % (PROTOCOL, b",".join(lines))
        return self._post("reports", body, timeout_s or self._timeout_s)

    def beat(self) -> str:
        """Say that the attempt lives; answers and raises as `send` does."""
        return self._post("heartbeat", b'{"version":%d}' % PROTOCOL, self._timeout_s)

    def _post(self, name: str, body: bytes, timeout_s: float) -> str:
        request = (
            f"POST {self._root}/{name} HTTP/1.1\r\nHost: tunesmith\r\nConnection: close\r\n"
            f"Authorization: Bearer {self._token}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        try:
            answer = self._exchange(request + body, timeout_s)
        except (ConnectionRefusedError, FileNotFoundError) as error:
            raise Away(str(error)) from error
        except OSError as error:
            raise Unreachable(str(error)) from error
        head, _, content = answer.partition(b"\r\n\r\n")
        words = head.split(None, 2)
        status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        if 400 <= status < 500:
            raise Refused(f"{status} {content[:500].decode(errors='replace')}")
        if status != 200:
            raise Unreachable(f"status {status or 'missing'}")
        return _desired(content)

    def _exchange(self, request: bytes, timeout_s: float) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(self._socket_path)
            connection.sendall(request)
            answer = bytearray()
            while len(answer) < _LARGEST_ANSWER and (part := connection.recv(65536)):
                answer += part
        return bytes(answer)


def _desired(content: bytes) -> str:
    try:
        message: Any = json.loads(content)
        return str(message["desired"])
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable(f"an answer without `desired`: {content[:200]!r}") from error
