"""Models of servers upstream: any that speaks chat completions, asked with patience."""

import asyncio
import random
from collections.abc import Mapping
from typing import Any, Final

import httpx2
import structlog

log = structlog.get_logger()

#: Tries of a question, and the longest pause that a server may ask for between two.
N_TRIES: Final = 4
LONGEST_PAUSE_S: Final = 30.0
FIRST_PAUSE_S: Final = 0.5
#: Answers after which asking again may help.
PASSING: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
TIMEOUT: Final = httpx2.Timeout(300.0, connect=10.0)


class UpstreamFailed(Exception):
    """The server upstream gives no answer: its status (0 when nothing came), what it says, the pause that it asks for."""

    def __init__(self, status: int, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class Upstream:
    """Asks servers upstream; one client, so that connections are kept."""

    def __init__(self, *, n_tries: int = N_TRIES, first_pause_s: float = FIRST_PAUSE_S) -> None:
        self._client = httpx2.AsyncClient(timeout=TIMEOUT, trust_env=False)
        self._n_tries = n_tries
        self._first_pause_s = first_pause_s

    async def complete(self, url: str, key: str | None, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer of `POST {url}/chat/completions`; a server that is busy or away is asked again.

        Raises:
            UpstreamFailed: it refuses, or there was no answer after the last try.
        """
        failure = UpstreamFailed(0, "no try was made")
        for number in range(self._n_tries):
            if number:
                await asyncio.sleep(self._pause_s(number, failure))
            try:
                return await self._once(url, key, body)
            except UpstreamFailed as error:
                failure = error
                if error.status and error.status not in PASSING:
                    break
                log.warning("upstream.again", url=url, status=error.status, reason=str(error), n=number + 1)
        raise failure

    def _pause_s(self, number: int, failure: UpstreamFailed) -> float:
        if failure.retry_after_s is not None:
            return min(LONGEST_PAUSE_S, max(0.0, failure.retry_after_s))
        return min(LONGEST_PAUSE_S, self._first_pause_s * 2 ** (number - 1) * random.uniform(0.75, 1.25))

    async def _once(self, url: str, key: str | None, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        try:
            answer = await self._client.post(f"{url.rstrip('/')}/chat/completions", json=body, headers=headers)
        except httpx2.HTTPError as error:
            raise UpstreamFailed(0, f"{url} cannot be asked: {error or type(error).__name__}") from error
        if answer.status_code != httpx2.codes.OK:
            raise _told(url, answer)
        try:
            told: Any = answer.json()
        except ValueError as error:
            raise UpstreamFailed(502, f"{url} answers what is not JSON") from error
        if not isinstance(told, dict):
            raise UpstreamFailed(502, f"{url} answers what is no object")
        return told

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()


def _told(url: str, answer: httpx2.Response) -> UpstreamFailed:
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = answer.text[:300]
    asked = answer.headers.get("retry-after", "")
    pause_s = float(asked) if asked.isdecimal() else None
    return UpstreamFailed(answer.status_code, f"{url} answers {answer.status_code}: {message[:500]}", pause_s)
