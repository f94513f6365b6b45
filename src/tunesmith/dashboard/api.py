"""The dashboard's way to the server: the public API over HTTP, with answers shared by all pages that ask for the same."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx2

from tunesmith.dashboard.me import Me

#: Pages that show the same ask once in this time, however many they are.
FRESH_S: Final = 0.9
#: How many answers are remembered.
N_ANSWERS: Final = 512

#: What a browser has to know of a download.
_PASSED_ON: Final = ("content-type", "content-length", "content-disposition")


class Refused(Exception):
    """The server said no, or nothing; the text is for the person who looks."""

    def __init__(self, message: str, status: int = 0, body: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = body or {}


class Answers:
    """Answers to GETs by key, project and path, each asked for once at a time and fresh for a moment."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str | None, str | None, str], tuple[float, asyncio.Task[dict[str, Any]]]] = {}

    async def get(self, api: "Api", path: str, fresh_s: float) -> dict[str, Any]:
        """Return the answer of `path`; the same object as long as it is the same answer."""
        name, now = (api.key, api.project, path), time.monotonic()
        found = self._kept.get(name)
        if found is None or (found[1].done() and now - found[0] > fresh_s):
            if len(self._kept) >= N_ANSWERS:
                self._kept = {name: kept for name, kept in self._kept.items() if now - kept[0] <= FRESH_S}
            found = (now, asyncio.create_task(self._asked(api, path, found)))
            self._kept[name] = found
        # One page that leaves must not end what others wait for.
        return await asyncio.shield(found[1])

    async def _asked(
        self, api: "Api", path: str, before: tuple[float, asyncio.Task[dict[str, Any]]] | None
    ) -> dict[str, Any]:
        answer = await api.call("GET", path)
        if before is not None and before[1].done() and not before[1].cancelled() and before[1].exception() is None:
            known = before[1].result()
            if known == answer:
                return known
        return answer


class Api:
    """Calls in the name of one key, or of nobody; `project` is the one that an admin chose to work in."""

    def __init__(self, http: httpx2.AsyncClient, answers: Answers, key: str | None, project: str | None = None) -> None:
        self._http = http
        self._answers = answers
        self.key = key
        self.project = project
        self.me = Me()

    async def get(self, path: str, fresh_s: float = FRESH_S) -> dict[str, Any]:
        """Return what a path answers, at most `fresh_s` seconds old.

        Raises:
            Refused: the server does not answer, or refuses.
        """
        return await self._answers.get(self, path, fresh_s)

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """Send a request and return the JSON object of its answer.

        Raises:
            Refused: the server does not answer, or refuses.
        """
        try:
            response = await self._http.request(method, path, json=body, headers=self._headers(), **more)
        except httpx2.HTTPError as error:
            raise Refused(f"The server does not answer: {error or type(error).__name__}.") from error
        return _told(response.status_code, response.content)

    async def content(self, path: str) -> bytes:
        """Return the bytes of a path: a file's content.

        Raises:
            Refused: the server does not answer, or refuses.
        """
        try:
            response = await self._http.get(path, headers=self._headers())
        except httpx2.HTTPError as error:
            raise Refused(f"The server does not answer: {error or type(error).__name__}.") from error
        if response.is_error:
            _told(response.status_code, response.content)
        return response.content

    async def download(self, path: str) -> AsyncGenerator[dict[str, str] | bytes]:
        """Yield what the bytes are, as headers, and then the bytes of a path as they come.

        Raises:
            Refused: the server does not answer, refuses, or breaks off.
        """
        try:
            async with self._http.stream("GET", path, headers=self._headers()) as response:
                if response.is_error:
                    _told(response.status_code, await response.aread())
                yield {name: response.headers[name] for name in _PASSED_ON if name in response.headers}
                async for chunk in response.aiter_bytes():
                    yield chunk
        except httpx2.HTTPError as error:
            raise Refused(f"The server broke off: {error or type(error).__name__}.") from error

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """Yield the chunks of a streamed answer as they come; one with an `index` may be an error of that model alone.

        Raises:
            Refused: the server does not answer, refuses, or fails on the way.
        """
        try:
            async with self._http.stream("POST", path, json=body, headers=self._headers()) as response:
                if response.is_error:
                    _told(response.status_code, await response.aread())
                async for line in response.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        continue
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk and "index" not in chunk:
                        raise Refused(str(chunk["error"].get("message")), body=chunk)
                    yield chunk
        except httpx2.HTTPError as error:
            raise Refused(f"The server broke off: {error or type(error).__name__}.") from error

    def _headers(self) -> dict[str, str]:
        project = {"OpenAI-Project": self.project} if self.project else {}
        return {"Authorization": f"Bearer {self.key}", **project} if self.key else {}


def _told(status: int, content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Refused(f"The server answered {status} and no JSON object.", status)
    if status >= 400:
        error = answer.get("error")
        raise Refused(str(error.get("message") if isinstance(error, dict) else status), status, answer)
    return answer


def path_of(*parts: str) -> str:
    """Return a path of names, each percent-encoded."""
    return "/" + "/".join(quote(part, safe=":") for part in parts)
