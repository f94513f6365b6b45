"""The command line's way to a server: HTTP calls whose failures become one line on stderr and an exit code.

Exit codes of every verb: 0 done, 1 the server or the machine said no, 2 wrong usage, 3 no server answers, 130 interrupted.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, Self

import httpx2
import typer

REFUSED: Final = 1
NO_SERVER: Final = 3
DEFAULT_BASE_URL: Final = "http://127.0.0.1:8000/v1"
#: Inspecting a folder hashes its weights; connecting takes no time on a machine that has the server.
TIMEOUT: Final = httpx2.Timeout(600.0, connect=5.0)

BaseUrl = Annotated[
    str, typer.Option(envvar="TUNESMITH_BASE_URL", help="The server's address, as the openai package gets it.")
]


def own_key() -> dict[str, str]:
    """Return the header with the caller's key, TUNESMITH_API_KEY or else TUNESMITH_ADMIN_KEY; none without one."""
    key = os.environ.get("TUNESMITH_API_KEY") or os.environ.get("TUNESMITH_ADMIN_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


class Client:
    """Calls of one server's own paths, as a context manager; `base_url` is what the `openai` package gets."""

    def __init__(self, base_url: str) -> None:
        root = base_url.rstrip("/").removesuffix("/v1")
        self.root = root
        try:
            self._http = httpx2.Client(base_url=root, headers=own_key(), timeout=TIMEOUT, trust_env=False)
        except httpx2.InvalidURL as error:
            fail(f"'{base_url}' is no address of a server: {error}. It looks like {DEFAULT_BASE_URL}.", 2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @contextmanager
    def download(self, path: str, body: dict[str, Any] | None = None) -> Generator[httpx2.Response]:
        """Send a GET, or a POST of a body, and yield the answer, whose bytes are still to be read.

        Failures end the command with one line.
        """
        try:
            with self._http.stream("GET" if body is None else "POST", path, json=body) as response:
                if response.is_error:
                    response.read()
                    error = response.json()["error"]
                    fail(str(error["message"]))
                yield response
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol):
            self._unreachable()
        except (httpx2.HTTPError, ValueError, KeyError) as error:
            fail(f"The server at {self.root} broke off: {error or type(error).__name__}.")

    def _unreachable(self) -> NoReturn:
        fail(
            f"No server answers at {self.root}. Start one with `tunesmith serve`, or name yours with --base-url.", NO_SERVER
        )

    def upload(self, path: Path, purpose: str = "fine-tune") -> str:
        """Send a file and return its id; failures end the command with one line."""
        with path.open("rb") as file:
            answer = self._send("POST", "/v1/files", data={"purpose": purpose}, files={"file": (path.name, file)})
        return str(answer["id"])

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the JSON object of the answer; anything else ends the command with one line."""
        return self._send(method, path, json=body)

    def _send(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **content)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol):
            self._unreachable()
        except httpx2.HTTPError as error:
            fail(f"The server at {self.root} did not answer: {error or type(error).__name__}.", NO_SERVER)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            fail(f"{self.root} answered {response.status_code} and no JSON object: is it a Tunesmith server?")
        if response.is_error:
            error = answer.get("error")
            fail(str(error.get("message") if isinstance(error, dict) else response.status_code))
        return answer


def fail(message: str, code: int = REFUSED) -> NoReturn:
    """End the command with one line on stderr."""
    typer.echo(f"tunesmith: {message}", err=True)
    raise typer.Exit(code)
