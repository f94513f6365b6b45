"""The layer that executes a POST once: it reads the `Idempotency-Key`, lets like requests wait for one another, replays.

Creates pass through it without a key too, since an SDK whose answer was lost sends them again; all others pass by.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.api.deps import PRINCIPAL
from tunesmith.api.errors import render
from tunesmith.api.once import ONCE, Once
from tunesmith.core.errors import ApiError, InvalidRequest, StillRunning
from tunesmith.domain.idempotency import KeptAnswer
from tunesmith.services.idempotency import Idempotency

KEY: Final = "idempotency-key"
RETRIES: Final = "x-stainless-retry-count"
N_KEY: Final = 255
#: No client sends a request again more often than this number of digits can tell.
N_DIGITS: Final = 4
UPLOAD: Final = "/v1/files"
#: Their bodies are forms that go to disk: the endpoint tells what they say, and asks for the replay.
_FORM: Final = re.compile(rf"{UPLOAD}|/v1/uploads/[^/]+/parts")
#: Their answers show a secret once, and are not kept.
_SECRET: Final = re.compile(
    r"/tunesmith/v1/keys|/v1/organization/(admin_api_keys|projects/[^/]+/service_accounts)"
    r"|/v1/webhook_endpoints(/[^/]+/rotate_secret)?"
)
CREATES: Final = frozenset({"/v1/fine_tuning/jobs", UPLOAD})
#: How long a request waits for a like one that is being executed.
PATIENCE_S: Final = 60.0

log = structlog.get_logger()


class ExecutedOnce:
    """Gives a request that came before the answer that it got then."""

    def __init__(self, app: ASGIApp, *, service: Idempotency, patience_s: float = PATIENCE_S) -> None:
        self._app = app
        self._service = service
        self._patience_s = patience_s
        self._running: dict[str, list[asyncio.Future[None]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if KEY not in headers and scope["path"] not in CREATES:
            await self._app(scope, receive, send)
            return
        if _SECRET.fullmatch(scope["path"]):
            told = "The answer shows a secret once and is kept nowhere, so it cannot be told again: leave the header out."
            await render(InvalidRequest(told, param="Idempotency-Key"))(scope, receive, send)
            return
        try:
            await self._once(scope, receive, send, headers)
        except ApiError as error:
            if _FORM.fullmatch(scope["path"]):
                await receive()  # of a body that was begun the rest is read too, so that its sender sees the answer
            await render(error)(scope, receive, send)

    async def _once(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        caller = scope[PRINCIPAL].scope
        once = Once(
            self._service,
            caller,
            route=b"POST %s?%s" % (scope["path"].encode("utf-8", "surrogateescape"), scope["query_string"]),
            key=_key(headers),
            n_retries=_retries(headers),
        )
        name = once.key
        if not _FORM.fullmatch(scope["path"]):
            body, receive = await _gathered(receive)
            if body is not None:
                fingerprint = once.read(body)
                name = name or fingerprint
        scope[ONCE] = once
        async with self._turn(name and f"{caller.project_id} {name}", waits=once.may_have_come):
            replayed = await once.replay()
            if replayed is not None:
                await replayed(scope, receive, send)
            else:
                await self._app(scope, receive, send if once.key is None else _Keeping(once, send))

    @asynccontextmanager
    async def _turn(self, name: str | None, *, waits: bool) -> AsyncGenerator[None]:
        """Be one of the running requests of a name, after those that came before when it has to wait for them.

        Raises:
            StillRunning: they take too long.
        """
        if name is None:
            yield
            return
        running = self._running.setdefault(name, [])
        earlier = list(running)
        end = asyncio.get_running_loop().create_future()
        running.append(end)
        try:
            if waits and earlier:
                _, late = await asyncio.wait(earlier, timeout=self._patience_s)
                if late:
                    raise StillRunning(
                        "The same request, sent before, is still being executed. Send it again to get that one's answer."
                    )
            yield
        finally:
            end.set_result(None)
            running.remove(end)
            if not running:
                del self._running[name]


class _Keeping:
    """Holds an answer back until it is whole, and kept."""

    def __init__(self, once: Once, send: Send) -> None:
        self._once = once
        self._send = send
        self._held: list[Message] = []

    async def __call__(self, message: Message) -> None:
        """Take the next part of the answer."""
        self._held.append(message)
        if message["type"] == "http.response.start" or message.get("more_body", False):
            return
        headers = {key: value for key, value in Headers(raw=self._held[0]["headers"]).items() if key != "content-length"}
        body = b"".join(part.get("body", b"") for part in self._held[1:])
        try:
            await self._once.keep(KeptAnswer(self._held[0]["status"], headers, body))
        except ApiError as error:
            # It was executed, and its client shall know; only a later copy of it would be executed again.
            log.warning("idempotency.not_kept", key=self._once.key, reason=error.message)
        for part in self._held:
            await self._send(part)


def _key(headers: Headers) -> str | None:
    """Return the request's key, or None.

    Raises:
        InvalidRequest: it is no key.
    """
    given = headers.getlist(KEY)
    if not given:
        return None
    key = given[0]
    if len(given) > 1 or not 1 <= len(key) <= N_KEY or not (key.isascii() and key.isprintable()):
        got = "it is given more than once" if len(given) > 1 else f"got {len(key)}"
        raise InvalidRequest(
            f"The header Idempotency-Key takes 1 to {N_KEY} printable ASCII characters, once ({got}).",
            param="Idempotency-Key",
            code="invalid_value",
        )
    return key


def _retries(headers: Headers) -> int:
    said = headers.get(RETRIES, "")
    return int(said) if said.isascii() and said.isdigit() and len(said) <= N_DIGITS else 0


async def _gathered(receive: Receive) -> tuple[bytes | None, Receive]:
    """Return a body and what hands it on; the body is None when it did not come whole, which the app then sees as well."""
    messages: list[Message] = []
    refusal: HTTPException | None = None
    whole = False
    try:
        while not whole:
            messages.append(await receive())
            if messages[-1]["type"] == "http.disconnect":
                break
            whole = not messages[-1].get("more_body", False)
    except HTTPException as error:
        refusal = error
    body = b"".join(message.get("body", b"") for message in messages)
    # Handed on in one piece, so that it lies in memory once.
    handed = [{"type": "http.request", "body": body, "more_body": False}] if whole else messages

    async def again() -> Message:
        if handed:
            return handed.pop(0)
        if refusal is not None:
            raise refusal
        return await receive()

    return (body if whole else None), again
