"""The command line's way to a server: HTTP calls whose failures become one line on stderr and an exit code.

`docs/cli.md` has the exit codes of every verb.
"""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, Self
from urllib.parse import urlsplit

import typer

if TYPE_CHECKING:
    import httpx2

REFUSED: Final = 1
USAGE: Final = 2
NO_SERVER: Final = 3
JOB_FAILED: Final = 4
JOB_CANCELLED: Final = 5
INTERRUPTED: Final = 130
DEFAULT_BASE_URL: Final = "http://127.0.0.1:8000/v1"
OPENAI: Final = "api.openai.com"
#: Inspecting a folder hashes its weights; connecting takes no time on a machine that has the server.
TIMEOUT_S: Final = 600.0
CONNECT_S: Final = 5.0
#: What a server answers where it has no such path, or has it for other methods.
ABSENT: Final = (404, 405)

BaseUrl = Annotated[
    str,
    typer.Option(
        envvar=["TUNESMITH_BASE_URL", "OPENAI_BASE_URL"], help="The server's address, as the openai package gets it."
    ),
]

#: Whether the verb that runs was asked for JSON, so that its errors are JSON too.
asked_for_json: ContextVar[bool] = ContextVar("asked_for_json", default=False)


class Refused(Exception):
    """The server said no; `error` is OpenAI's error object."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("message") or status))
        self.status, self.error = status, error


class Unreachable(Exception):
    """No server answers, or none that can be understood; the text is for the user."""

    def __init__(self, message: str, code: int = NO_SERVER) -> None:
        super().__init__(message)
        self.code = code


def own_key(host: str | None = None) -> dict[str, str]:
    """Return the header with the caller's key for a host, none without one; a key of ours is never sent to OpenAI."""
    ours = () if host == OPENAI else ("TUNESMITH_API_KEY", "TUNESMITH_ADMIN_KEY")
    key = next((key for name in (*ours, "OPENAI_API_KEY") if (key := os.environ.get(name))), None)
    return {"Authorization": f"Bearer {key}"} if key else {}


class Client:
    """Calls of one server's own paths, as a context manager; `base_url` is what the `openai` package gets."""

    def __init__(self, base_url: str, *, timeout_s: float = TIMEOUT_S, connect_s: float = CONNECT_S) -> None:
        self.root = base_url.rstrip("/").removesuffix("/v1")
        self._timeouts = (timeout_s, connect_s)
        self._opened: httpx2.Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.close()

    @property
    def _http(self) -> "httpx2.Client":
        if self._opened is None:
            import httpx2

            from tunesmith.core.address import is_loopback

            timeout_s, connect_s = self._timeouts
            try:
                host = urlsplit(self.root).hostname
                self._opened = httpx2.Client(
                    base_url=self.root,
                    headers=own_key(host),
                    timeout=httpx2.Timeout(timeout_s, connect=connect_s),
                    trust_env=host is not None and not is_loopback(host),
                )
            except (httpx2.InvalidURL, ValueError) as error:
                message = f"'{self.root}' is no address of a server: {error}. It looks like {DEFAULT_BASE_URL}."
                raise Unreachable(message, USAGE) from error
        return self._opened

    @contextmanager
    def download(self, path: str, body: dict[str, Any] | None = None) -> Generator["httpx2.Response"]:
        """Send a GET, or a POST of a body, and yield the answer, whose bytes are still to be read.

        Failures end the command with one line.
        """
        import httpx2

        try:
            with self._http.stream("GET" if body is None else "POST", path, json=body) as response:
                if response.is_error:
                    response.read()
                    raise Refused(response.status_code, response.json()["error"])
                yield response
        except Refused as error:
            fail(str(error), error=error.error)
        except Unreachable as error:
            fail(str(error), error.code)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol):
            fail(self._nobody(), NO_SERVER)
        except (httpx2.HTTPError, ValueError, KeyError) as error:
            fail(f"The server at {self.root} broke off: {error or type(error).__name__}.")

    def upload(self, path: Path, purpose: str = "fine-tune") -> str:
        """Send a file and return its id; failures end the command with one line."""
        return str(self.send_file(path, purpose)["id"])

    def send_file(self, path: Path, purpose: str = "fine-tune") -> dict[str, Any]:
        """Send a file and return its object; failures end the command with one line."""
        try:
            with path.open("rb") as file:
                files = {"file": (path.name, file)}
                return self._told("POST", "/v1/files", data={"purpose": purpose}, files=files)
        except OSError as error:
            fail(f"{path} cannot be read: {error.strerror or error}.", USAGE)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the JSON object of the answer; anything else ends the command with one line."""
        return self._told(method, path, json=body)

    def extra(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """Call a path of Tunesmith's own; None where the server, OpenAI's for one, does not have it."""
        try:
            return self.request(method, path, json=body)
        except Refused as error:
            if error.status in ABSENT:
                return None
            fail(str(error), error=error.error)
        except Unreachable as error:
            fail(str(error), error.code)

    def _told(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        try:
            return self.request(method, path, **content)
        except Refused as error:
            fail(str(error), error=error.error)
        except Unreachable as error:
            fail(str(error), error.code)

    def request(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """Send a request and return the JSON object of the answer.

        Raises:
            Refused: the server says no.
            Unreachable: no server answers, or something that is none.
        """
        import httpx2

        try:
            response = self._http.request(method, path, **content)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol) as error:
            raise Unreachable(self._nobody()) from error
        except httpx2.HTTPError as error:
            raise Unreachable(f"The server at {self.root} did not answer: {error or type(error).__name__}.") from error
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if isinstance(answer, dict) and not response.is_error:
            return answer
        error = answer.get("error") if isinstance(answer, dict) else None
        said = f"{self.root} answered {response.status_code} and no JSON object: is it a Tunesmith server?"
        raise Refused(response.status_code, error if isinstance(error, dict) else {"message": error or said})

    def _nobody(self) -> str:
        return f"No server answers at {self.root}. Start one with `tunesmith serve`, or name yours with --base-url."


def fail(message: str, code: int = REFUSED, *, error: dict[str, Any] | None = None) -> NoReturn:
    """End the command with one line on stderr; with --json it is an error object, the server's own where it sent one."""
    line = " ".join(message.split())
    if asked_for_json.get():
        kind = "connection_error" if code == NO_SERVER else "invalid_request_error"
        typer.echo(json.dumps({"error": error or {"message": line, "type": kind, "param": None, "code": None}}), err=True)
    else:
        typer.echo(f"tunesmith: {line}", err=True)
    raise typer.Exit(code)
