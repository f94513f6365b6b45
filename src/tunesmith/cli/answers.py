"""Answers of chat models as they come, of several at once, from any server with OpenAI's chat completions."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from tunesmith.cli.client import CONNECT_S, NO_SERVER, REFUSED, TIMEOUT_S, Unreachable, connection, nobody

PATH: Final = "/v1/chat/completions"

Message = dict[str, Any]


@dataclass(slots=True)
class Answer:
    """What a model has said so far."""

    model: str
    text: str = ""
    thoughts: str = ""
    #: Why it ended, as the server says; None while it goes on, and of one that broke off.
    reason: str | None = None
    #: Why there is none, or no more of it.
    error: str | None = None
    #: The exit code of a command that ends with it.
    code: int = 0


#: Takes an answer that has grown, what is new of its text, and of its thoughts.
Told = Callable[[Answer, str, str], None]


def ask(
    root: str, answers: Sequence[Answer], turns: Sequence[Sequence[Message]], options: Mapping[str, Any], told: Told
) -> None:
    """Let each model answer its own conversation, all at the same time; an interrupt leaves what has come until then."""
    try:
        how = connection(root)
    except Unreachable as error:
        for answer in answers:
            answer.error, answer.code = str(error), error.code
        return
    asyncio.run(_ask_all(how, list(zip(answers, turns, strict=True)), options, told))


async def _ask_all(
    how: dict[str, Any], asked: Sequence[tuple[Answer, Sequence[Message]]], options: Mapping[str, Any], told: Told
) -> None:
    timeout = httpx2.Timeout(TIMEOUT_S, connect=CONNECT_S)
    async with httpx2.AsyncClient(**how, timeout=timeout) as http, asyncio.TaskGroup() as group:
        for answer, messages in asked:
            body = {"model": answer.model, "messages": list(messages), "stream": True, **options}
            group.create_task(_follow(http, answer, body, told))


async def _follow(http: httpx2.AsyncClient, answer: Answer, body: Mapping[str, Any], told: Told) -> None:
    try:
        async with http.stream("POST", PATH, json=body) as response:
            if response.is_error:
                await response.aread()
                answer.error, answer.code = refusal(response), REFUSED
                return
            async with aclosing(_events(response)) as events:
                async for event in events:
                    _take(answer, event, told)
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        answer.error, answer.code = nobody(str(http.base_url).rstrip("/"), error), NO_SERVER
    except (httpx2.HTTPError, ValueError) as error:
        answer.error, answer.code = f"The answer broke off: {error or type(error).__name__}.", REFUSED
    if answer.reason is None and answer.error is None:
        answer.error, answer.code = "The answer broke off before its end.", REFUSED


def _take(answer: Answer, event: Mapping[str, Any], told: Told) -> None:
    if "error" in event:
        answer.error, answer.code = str((event["error"] or {}).get("message")), REFUSED
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        text = (delta.get("content") or "") + (delta.get("refusal") or "")
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            text += (f"\n→ {function['name']} " if function.get("name") else "") + (function.get("arguments") or "")
        thoughts = delta.get("reasoning_content") or ""
        answer.text += text
        answer.thoughts += thoughts
        answer.reason = choice.get("finish_reason") or answer.reason
        if text or thoughts:
            told(answer, text, thoughts)


async def _events(response: httpx2.Response) -> AsyncGenerator[dict[str, Any]]:
    """Yield the objects of server-sent events; lines end with a newline alone, since a text may hold the other ends raw."""
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            said = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and said != b"[DONE]":
                yield json.loads(said)


def refusal(response: httpx2.Response) -> str:
    """Return why a server refused, in its own words where it has any."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{response.url} answered {response.status_code}: is it a server with OpenAI's chat completions?"
