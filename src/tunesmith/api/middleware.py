"""What stands around every request, as plain ASGI: its id and headers, the cap on bodies, what is no request of ours."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.api.deps import PRINCIPAL, Principal
from tunesmith.api.errors import render
from tunesmith.core.address import is_loopback
from tunesmith.core.clock import Clock
from tunesmith.core.errors import ApiError, Forbidden, InvalidRequest, TooLarge
from tunesmith.core.ids import Ids

#: Where in a request's scope further headers of its answer are put.
HEADERS: Final = "tunesmith.headers"
#: A refused upload is read to its end up to here, so that its sender sees the answer instead of a reset connection.
DRAINED_BYTES: Final = 2 * 1024**3
DRAINED_S: Final = 20.0


def own_headers(request_id: str, *, took_s: float, caller: Principal | None = None) -> dict[str, str]:
    """Return the headers of every answer; whose it is where that is known."""
    whose = {} if caller is None else {"openai-organization": caller.organization_id, "openai-project": caller.project_id}
    return {
        "x-request-id": request_id,
        **whose,
        "openai-processing-ms": str(round(took_s * 1000)),
        "openai-version": "2020-10-01",
        "x-content-type-options": "nosniff",
    }


class Frame:
    """Gives every response its id, timing and OpenAI's headers; answers HEAD as GET without the body."""

    def __init__(self, app: ASGIApp, *, clock: Clock, ids: Ids) -> None:
        self._app = app
        self._clock = clock
        self._ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._ids.request()
        start = self._clock.monotonic()
        head = scope["method"] == "HEAD"
        inner: dict[str, Any] = {**scope, "tunesmith.request_id": request_id, HEADERS: {}}

        async def framed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                took_s = self._clock.monotonic() - start
                headers.update(own_headers(request_id, took_s=took_s, caller=inner.get(PRINCIPAL)))
                headers.update(inner[HEADERS])
            elif head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        if head:
            inner["method"] = "GET"
        await self._app(inner, receive, framed)


class Vetted:
    """Refuses NUL in a URL; without keys also what a web page in a browser here could send: a foreign Host or Origin."""

    def __init__(self, app: ASGIApp, *, keyed: bool) -> None:
        self._app = app
        self._keyed = keyed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it with 403 or 400; a websocket is refused by closing it."""
        if scope["type"] == "websocket" and not self._same_site(Headers(scope=scope)):
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http":
            refusal = None if self._keyed else _refusal(Headers(scope=scope))
            if (
                refusal is None
                and "\x00" in f"{scope['path']}{scope['query_string'].replace(b'%00', bytes(1)).decode('latin-1')}"
            ):
                refusal = InvalidRequest("The URL must not contain the character NUL.")
            if refusal is not None:
                await render(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _same_site(self, headers: Headers) -> bool:
        """Say whether a websocket is opened by a page of this server's own: browsers let any page open one."""
        origin = headers.get("origin")
        same = origin is None or urlsplit(origin).netloc == headers.get("host")
        return same if self._keyed else same and _refusal(headers) is None


def _refusal(headers: Headers) -> ApiError | None:
    why = "While this server has no keys, only programs on its own machine may use it"
    host = headers.get("host", "")
    if not _is_local_authority(host):
        return Forbidden(f"Host '{host}' refused. {why}: call it as localhost, 127.0.0.1 or [::1].")
    origin = headers.get("origin")
    if origin is not None and not (
        origin.startswith(("http://", "https://")) and _is_local_authority(origin.split("://")[1])
    ):
        return Forbidden(f"Origin '{origin}' refused. {why}, and no web page from elsewhere.")
    return None


def _is_local_authority(authority: str) -> bool:
    """Say whether `host[:port]` names this machine and nothing else is written into it."""
    try:
        parts = urlsplit(f"//{authority}")
        _ = parts.port
    except ValueError:
        return False
    if parts.netloc != authority or "@" in authority:
        return False
    return parts.hostname is not None and is_loopback(parts.hostname)


@dataclass(frozen=True, slots=True)
class Cap:
    """How large a body may be, and how its sender is told."""

    n_bytes: int
    told: str


class BodyLimit:
    """Refuses bodies over the limit with 413, by their declared length at once, by their bytes otherwise."""

    def __init__(self, app: ASGIApp, *, clock: Clock, cap: Callable[[Scope], Cap]) -> None:
        self._app = app
        self._clock = clock
        self._cap = cap

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        cap = self._cap(scope)
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared) > cap.n_bytes:
            if headers.get("expect", "").lower() != "100-continue":
                await drained(receive, self._clock)
            await render(TooLarge(cap.told), {"connection": "close"})(scope, receive, send)
            return
        n_received, complete = 0, False

        async def counted() -> Message:
            nonlocal n_received, complete
            message = await receive()
            n_received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if n_received > cap.n_bytes:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, cap.told)
            return message

        async def patient(message: Message) -> None:
            refused = message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST
            if refused and n_received and not complete:
                await drained(receive, self._clock)
            await send(message)

        await self._app(scope, counted, patient)


async def drained(receive: Receive, clock: Clock) -> None:
    """Read and forget the rest of a body that was refused."""
    end = clock.monotonic() + DRAINED_S
    n_dropped = 0
    while n_dropped < DRAINED_BYTES and clock.monotonic() < end:
        message = await receive()
        n_dropped += len(message.get("body", b""))
        if not message.get("more_body", False):
            return
