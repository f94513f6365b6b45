"""Servers upstream over HTTP: any that speaks OpenAI's wire, asked with patience, and with a key that shows nowhere else."""

import asyncio
import json
import random
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar, cast

import httpx2
import structlog

from tunesmith.core.clock import Clock
from tunesmith.domain.ports import Endpoint, UpstreamFailed
from tunesmith.inference.events import EventTooLarge, event_data

log = structlog.get_logger()

#: Tries of a request, the pause after the first one, and the longest pause: a server that asks for more is not waited for.
N_TRIES: Final = 4
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
#: Refusals after which asking again may help, beside every 5xx.
PASSING: Final = frozenset({408, 409, 425, 429})
OK: Final = 200
SERVER_ERROR: Final = 500
FIRST_ERROR: Final = 400
LAST_ERROR: Final = 599
CONNECT_S: Final = 10.0
#: Largest answer.
N_MAX_BYTES: Final = 32 * 1024 * 1024
_N_SHOWN: Final = 500

Result = TypeVar("Result")


class HttpUpstreams:
    """The `Upstreams` port. Each request has a connection of its own, so nothing outlives it, on whichever loop it ran."""

    def __init__(
        self,
        *,
        clock: Clock,
        n_at_once: int = 8,
        timeout_s: float = 300.0,
        first_pause_s: float = FIRST_PAUSE_S,
        chance: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._n_at_once = n_at_once
        self._timeout_s = timeout_s
        self._first_pause_s = first_pause_s
        self._chance = chance if chance is not None else random.SystemRandom()
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._trust: ssl.SSLContext | None = None

    @asynccontextmanager
    async def turn(self, at: Endpoint) -> AsyncGenerator[None]:
        """Wait until fewer than the permitted number are asking the server, and count among them."""
        async with self._turns.setdefault(at.url, asyncio.Semaphore(self._n_at_once)):
            yield

    async def call(
        self,
        at: Endpoint,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        n_tries: int | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return the JSON object that the server answers; one that is busy or away is asked again.

        Raises:
            UpstreamFailed: it refuses, or there was no answer after the last try or within the time.
        """
        return await self._patient(
            at, lambda: self._once(at, path, body), n_tries=n_tries or N_TRIES, limit_s=timeout_s or self._timeout_s
        )

    async def tell(
        self, at: Endpoint, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> None:
        """Send a request whose answer, whatever its words, says only that it was done; it is sent once.

        Raises:
            UpstreamFailed: it refuses, or there was no answer within the time.
        """

        async def once() -> None:
            async with self._answered(at, path, body) as answer:
                raw = await _whole(answer, at)
                if answer.status_code != OK:
                    raise self._refusal(at, answer, _without_key(_parsed(raw), at.key), raw)

        await self._patient(at, once, n_tries=1, limit_s=timeout_s or self._timeout_s)

    async def stream(self, at: Endpoint, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """Yield the JSON objects of a streamed answer; closing the generator closes the connection.

        A server that is away, or fails before it says anything, is asked again; one that is busy is not.

        Raises:
            UpstreamFailed: it refuses, fails, falls silent, or breaks off.
        """

        async def begun() -> tuple[AsyncGenerator[dict[str, Any]], dict[str, Any]]:
            events = self._events(at, path, body)
            return events, await anext(events)

        try:
            events, event = await self._patient(at, begun, n_tries=N_TRIES, limit_s=self._timeout_s, at_once=PASSING)
            async with aclosing(events):
                while True:
                    yield event
                    async with asyncio.timeout(self._timeout_s):
                        event = await anext(events)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise UpstreamFailed(f"{at.url} fell silent for {self._timeout_s:g} s.", passing=True) from error

    async def _patient(
        self,
        at: Endpoint,
        once: Callable[[], Awaitable[Result]],
        *,
        n_tries: int,
        limit_s: float,
        at_once: Collection[int] = (),
    ) -> Result:
        """Try until it works, as long as that may help; a status of `at_once` is told to the caller without another try."""
        pause_s = self._first_pause_s
        told = ""
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    n_tries -= 1
                    try:
                        return await once()
                    except UpstreamFailed as failure:
                        asked_s = failure.pause_s
                        too_long = (asked_s or 0.0) > LONGEST_PAUSE_S
                        if not failure.passing or not n_tries or too_long or failure.status in at_once:
                            raise
                        log.warning("upstream.again", url=at.url, status=failure.status, reason=str(failure), left=n_tries)
                        told = f" Before that: {failure}"
                    await asyncio.sleep(pause_s * self._chance.uniform(0.75, 1.25) if asked_s is None else asked_s)
                    pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
        except TimeoutError as error:
            raise UpstreamFailed(f"{at.url} gave no answer within {limit_s:g} s.{told}", passing=True) from error

    async def _once(self, at: Endpoint, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        async with self._answered(at, path, body) as answer:
            return self._object(at, answer, await _whole(answer, at))

    async def _events(self, at: Endpoint, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        async with self._answered(at, path, body, accept="text/event-stream") as answer:
            kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            if answer.status_code != OK or kind == "application/json":
                yield self._object(at, answer, await _whole(answer, at))
                return
            n_said = 0
            try:
                async with aclosing(event_data(answer.aiter_bytes(), n_max_bytes=N_MAX_BYTES)) as events:
                    async for data in events:
                        n_said += 1
                        yield self._object(at, answer, data)
            except EventTooLarge as error:
                raise UpstreamFailed(f"{at.url} sends an event of more than {N_MAX_BYTES} bytes.") from error
            if not n_said:
                raise UpstreamFailed(f"{at.url} ends its answer before it says anything.", passing=True)

    @asynccontextmanager
    async def _answered(
        self, at: Endpoint, path: str, body: Mapping[str, Any] | None, *, accept: str = "application/json"
    ) -> AsyncGenerator[httpx2.Response]:
        headers = {"accept": accept, "content-type": "application/json"}
        if at.key is not None:
            headers["authorization"] = f"Bearer {at.key}"
        # In ASCII: a template may have filled in what UTF-8 cannot hold.
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        method = "GET" if body is None else "POST"
        if self._trust is None:
            self._trust = httpx2.create_ssl_context()
        timeout = httpx2.Timeout(None, connect=CONNECT_S)  # the caller's clock ends the rest
        try:
            async with (
                httpx2.AsyncClient(verify=self._trust, trust_env=False, timeout=timeout) as client,
                client.stream(method, f"{at.url}/{path}", content=content, headers=headers) as answer,
            ):
                yield answer
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise UpstreamFailed(f"{at.url} cannot be asked: {_words(error)}.", passing=True) from error

    def _object(self, at: Endpoint, answer: httpx2.Response, raw: bytes) -> dict[str, Any]:
        """Return the JSON object that an answer, or an event of it, is.

        Raises:
            UpstreamFailed: it is none, or it is an error.
        """
        told = _without_key(_parsed(raw), at.key)
        if answer.status_code != OK or (isinstance(told, dict) and told.get("error")):
            raise self._refusal(at, answer, told, raw)
        if not isinstance(told, dict):
            raise UpstreamFailed(f"{at.url} answers what is no JSON object.", status=answer.status_code, passing=True)
        return cast("dict[str, Any]", told)

    def _refusal(self, at: Endpoint, answer: httpx2.Response, told: object, raw: bytes) -> UpstreamFailed:
        said = _said(told)
        # Told within an answer that had begun, a status stands in the body if anywhere.
        status = answer.status_code if answer.status_code != OK else said.status or OK
        reason = said.reason
        if reason is None:
            reason = str(_without_key(raw[: 4 * _N_SHOWN].decode(errors="replace"), at.key))
        passing = status in PASSING or status >= SERVER_ERROR
        if answer.headers.get("x-should-retry", "").lower() == "false":
            passing = False
        told_us = " ".join(reason.split())[:_N_SHOWN].encode(errors="replace").decode()
        return UpstreamFailed(
            f"{at.url} answers {status}: {told_us or 'nothing'}",
            status=status,
            code=said.code,
            passing=passing,
            pause_s=self._asked_s(answer.headers.get("retry-after", "")),
            reason=told_us,
            param=said.param,
        )

    def _asked_s(self, text: str) -> float | None:
        """Return the seconds of a `Retry-After`: a number, or a date."""
        try:
            return max(0.0, min(float(text), 1e9))
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - self._clock.now())
        except (ValueError, OverflowError):
            return None


async def _whole(answer: httpx2.Response, at: Endpoint) -> bytes:
    content = bytearray()
    async for part in answer.aiter_bytes():
        content += part
        if len(content) > N_MAX_BYTES:
            raise UpstreamFailed(f"{at.url} answers more than {N_MAX_BYTES} bytes.", status=answer.status_code)
    return bytes(content)


def _parsed(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class _Said:
    """What an error's body says."""

    reason: str | None = None
    code: str | None = None
    param: str | None = None
    status: int | None = None


def _said(told: object) -> _Said:
    """Read an error's body; servers write it in several ways."""
    if not isinstance(told, dict):
        return _Said()
    body = cast("dict[str, Any]", told)
    error = body.get("error", body)
    if isinstance(error, str):
        return _Said(error)
    if not isinstance(error, dict):
        return _Said()
    inner = cast("dict[str, Any]", error)
    reason = inner.get("message") or inner.get("detail")
    code, param = inner.get("code"), inner.get("param")
    return _Said(
        None if reason is None else str(reason),
        code if isinstance(code, str) else None,
        param if isinstance(param, str) else None,
        code if isinstance(code, int) and FIRST_ERROR <= code <= LAST_ERROR else None,
    )


def _without_key(value: object, key: str | None) -> object:
    """Return a value with the key taken out of every text: some servers write back what they were sent."""
    if key is None:
        return value
    if isinstance(value, str):
        return value.replace(key, "[key]")
    if isinstance(value, list):
        return [_without_key(inner, key) for inner in cast("list[object]", value)]
    if isinstance(value, dict):
        return {name: _without_key(inner, key) for name, inner in cast("dict[str, object]", value).items()}
    return value


def _words(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__
