"""Servers upstream over HTTP: any that speaks OpenAI's wire, asked with patience, and with a key that shows nowhere else."""

import asyncio
import json
import random
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Final, cast

import httpx2
import structlog

from tunesmith.core.clock import Clock
from tunesmith.domain.ports import Endpoint, UpstreamFailed

log = structlog.get_logger()

#: Tries of a request, the pause after the first one, and the longest pause: a server that asks for more is not waited for.
N_TRIES: Final = 4
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
#: Refusals after which asking again may help, beside every 5xx.
PASSING: Final = frozenset({408, 409, 425, 429})
OK: Final = 200
SERVER_ERROR: Final = 500
CONNECT_S: Final = 10.0
#: Largest answer.
N_MAX_BYTES: Final = 32 * 1024 * 1024
_N_SHOWN: Final = 500


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
        limit_s = timeout_s or self._timeout_s
        n_left = n_tries or N_TRIES
        pause_s = self._first_pause_s
        told = ""
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    n_left -= 1
                    try:
                        return await self._once(at, path, body)
                    except UpstreamFailed as failure:
                        asked_s = failure.pause_s
                        if not failure.passing or not n_left or (asked_s or 0.0) > LONGEST_PAUSE_S:
                            raise
                        log.warning("upstream.again", url=at.url, status=failure.status, reason=str(failure), left=n_left)
                        told = f" Before that: {failure}"
                    await asyncio.sleep(pause_s * self._chance.uniform(0.75, 1.25) if asked_s is None else asked_s)
                    pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
        except TimeoutError as error:
            raise UpstreamFailed(f"{at.url} gave no answer within {limit_s:g} s.{told}", passing=True) from error

    async def _once(self, at: Endpoint, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        headers = {"accept": "application/json", "content-type": "application/json"}
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
                raw = await _whole(answer, at)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise UpstreamFailed(f"{at.url} cannot be asked: {_words(error)}.", passing=True) from error
        told = _without_key(_parsed(raw), at.key)
        if answer.status_code != OK:
            raise self._refusal(at, answer, told, raw)
        if not isinstance(told, dict):
            raise UpstreamFailed(f"{at.url} answers what is no JSON object.", status=answer.status_code, passing=True)
        return cast("dict[str, Any]", told)

    def _refusal(self, at: Endpoint, answer: httpx2.Response, told: object, raw: bytes) -> UpstreamFailed:
        status = answer.status_code
        reason, code = _reason(told)
        if reason is None:
            reason = str(_without_key(raw[: 4 * _N_SHOWN].decode(errors="replace"), at.key))
        passing = status in PASSING or status >= SERVER_ERROR
        if answer.headers.get("x-should-retry", "").lower() == "false":
            passing = False
        told_us = " ".join(reason.split())[:_N_SHOWN].encode(errors="replace").decode()
        return UpstreamFailed(
            f"{at.url} answers {status}: {told_us or 'nothing'}",
            status=status,
            code=code,
            passing=passing,
            pause_s=self._asked_s(answer.headers.get("retry-after", "")),
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


def _reason(told: object) -> tuple[str | None, str | None]:
    """Return what an error's body says, and its code; servers write it in several ways."""
    if not isinstance(told, dict):
        return None, None
    body = cast("dict[str, Any]", told)
    error = body.get("error", body)
    if isinstance(error, str):
        return error, None
    if not isinstance(error, dict):
        return None, None
    inner = cast("dict[str, Any]", error)
    reason = inner.get("message") or inner.get("detail")
    code = inner.get("code")
    return None if reason is None else str(reason), code if isinstance(code, str) else None


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
