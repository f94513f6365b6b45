"""The command line's way to a server: HTTP calls whose failures become one line on stderr and an exit code.

`docs/cli.md` has the exit codes of every verb.
"""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, Self
from urllib.parse import quote, urlsplit

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
#: Where Tunesmith's own paths begin, which no other server has.
OURS: Final = "/tunesmith/"
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


def connection(root: str) -> dict[str, Any]:
    """Return how a server is asked: its address, the caller's key, and whether by a proxy.

    Raises:
        Unreachable: the address is none, or the key cannot be sent.
    """
    from tunesmith.core.address import is_loopback

    try:
        split = urlsplit(root)
        host = split.hostname
    except ValueError:
        split, host = None, None
    if split is None or host is None or split.scheme not in ("http", "https"):
        raise Unreachable(f"'{root}' is no address of a server: --base-url takes one like {DEFAULT_BASE_URL}.", USAGE)
    return {"base_url": root, "headers": own_key(host), "trust_env": not is_loopback(host) or split.scheme == "https"}


def own_key(host: str | None = None) -> dict[str, str]:
    """Return the header with the caller's key for a host, none without one; a key of ours is never sent to OpenAI.

    Raises:
        Unreachable: the key cannot be sent.
    """
    ours = () if host == OPENAI else ("TUNESMITH_API_KEY", "TUNESMITH_ADMIN_KEY")
    found = ((name, key) for name in (*ours, "OPENAI_API_KEY") if (key := os.environ.get(name, "").strip()))
    name, key = next(found, ("", ""))
    if key and not (key.isascii() and key.isprintable()):
        raise Unreachable(f"The key in {name} has a character that no key has: set it again.", USAGE)
    return {"Authorization": f"Bearer {key}"} if key else {}


def nobody(root: str, error: Exception) -> str:
    """Return what to tell of a server that cannot be reached."""
    reason = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        why = reason.partition("certificate verify failed: ")[2].partition(" (_ssl")[0]
        return f"The certificate of {root} is not trusted here ({why}): the variable SSL_CERT_FILE names one that is."
    if "SSL" in reason:
        return f"{root} speaks no TLS that is understood here ({reason}): does its address begin with http://?"
    known = not reason or "refused" in reason or reason.startswith("All connection attempts")
    why = "" if known else f" ({reason.partition('] ')[2] or reason})"
    return f"No server answers at {root}{why}. Start one with `tunesmith serve`, or name yours with --base-url."


def segment(said: str) -> str:
    """Return an id as a piece of a path; one that would be no piece of its own ends the command with one line."""
    if said.strip() in ("", ".", ".."):
        fail(f"'{said}' is no id or name{'' if said.strip() else ': is a variable of your script empty?'}", USAGE)
    return quote(said, safe="")


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

            timeout_s, connect_s = self._timeouts
            how = connection(self.root)
            try:
                self._opened = httpx2.Client(**how, timeout=httpx2.Timeout(timeout_s, connect=connect_s))
            except (httpx2.InvalidURL, ValueError) as error:
                raise Unreachable(f"'{self.root}' is no address of a server: {error}.", USAGE) from error
        return self._opened

    def require(self, path: str) -> None:
        """End the command where it is known, without asking, that the server has no such path."""
        try:
            self._check(path)
        except Refused as error:
            fail(str(error))

    def _check(self, path: str) -> None:
        if path.startswith(OURS) and urlsplit(self.root).hostname == OPENAI:
            raise Refused(404, {"message": self._not_ours(path)})

    def _not_ours(self, path: str) -> str:
        return (
            f"{self.root} has no {path.partition('?')[0]}, which is Tunesmith's own: this verb is for a Tunesmith server, "
            "named by --base-url."
        )

    @contextmanager
    def download(self, path: str, body: dict[str, Any] | None = None) -> Generator["httpx2.Response"]:
        """Send a GET, or a POST of a body, and yield the answer, whose bytes are still to be read.

        Failures end the command with one line.
        """
        import httpx2

        try:
            self._check(path)
            with self._http.stream("GET" if body is None else "POST", path, json=body) as response:
                if response.is_error:
                    response.read()
                    raise self._refused(path, response)
                yield response
        except Refused as error:
            fail(str(error), error=error.error)
        except Unreachable as error:
            fail(str(error), error.code)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            fail(nobody(self.root, error), NO_SERVER)
        except (httpx2.HTTPError, ValueError) as error:
            fail(f"The server at {self.root} broke off: {error or type(error).__name__}.")

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

        self._check(path)
        try:
            response = self._http.request(method, path, **content)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise Unreachable(nobody(self.root, error)) from error
        except httpx2.HTTPError as error:
            raise Unreachable(f"The server at {self.root} did not answer: {error or type(error).__name__}.") from error
        answer = _json(response)
        if isinstance(answer, dict) and not response.is_error:
            return answer
        raise self._refused(path, response)

    def _refused(self, path: str, response: "httpx2.Response") -> Refused:
        answer = _json(response)
        error = answer.get("error") if isinstance(answer, dict) else None
        told = error if isinstance(error, dict) else {}
        # what is not there of Tunesmith's own names the parameter that says which
        if path.startswith(OURS) and response.status_code in ABSENT and not told.get("param"):
            return Refused(response.status_code, {"message": self._not_ours(path)})
        said = f"{self.root} answered {response.status_code} and no JSON object: is it a Tunesmith server?"
        return Refused(response.status_code, told or {"message": error or said})


def _json(response: "httpx2.Response") -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def fail(message: str, code: int = REFUSED, *, error: dict[str, Any] | None = None) -> NoReturn:
    """End the command with one line on stderr; with --json it is an error object, the server's own where it sent one."""
    line = " ".join(message.split())
    if asked_for_json.get():
        kind = "connection_error" if code == NO_SERVER else "invalid_request_error"
        told = {"message": line, "type": kind, "param": None, "code": None, **(error or {})}
        typer.echo(json.dumps({"error": told}), err=True)
    else:
        typer.echo(f"tunesmith: {line}", err=True)
    raise typer.Exit(code)
