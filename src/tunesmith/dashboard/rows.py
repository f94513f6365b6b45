"""The first rows of a JSONL file as conversations, for people to look at; how a file is checked is the server's to say."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

N_ROWS: Final = 20


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a file: its messages by heading, or what is wrong with it."""

    line: int
    parts: dict[str, list[dict[str, Any]]] = field(default_factory=dict[str, list[dict[str, Any]]])
    other: dict[str, Any] = field(default_factory=dict[str, Any])
    problem: str | None = None


def first_rows(content: bytes, n: int = N_ROWS) -> list[Row]:
    """Return the first `n` rows that are not blank."""
    found: list[Row] = []
    for number, line in enumerate(content.decode("utf-8-sig", "replace").split("\n"), 1):
        if len(found) == n:
            break
        if line.strip():
            found.append(_row(number, line))
    return found


def rows_at(content: bytes, lines: Collection[int]) -> list[Row]:
    """Return the rows at some lines."""
    every = content.decode("utf-8-sig", "replace").split("\n")
    return [_row(line, every[line - 1]) for line in sorted(lines) if 0 < line <= len(every)]


def _row(number: int, line: str) -> Row:
    try:
        said: object = json.loads(line)
    except ValueError as error:
        return Row(number, problem=f"not JSON: {error}")
    if not isinstance(said, dict):
        return Row(number, problem="not a JSON object")
    row = cast("Mapping[str, Any]", said)
    parts: dict[str, list[dict[str, Any]]] = {}
    other: dict[str, Any] = {}
    for name, value in row.items():
        messages = value.get("messages") if isinstance(value, dict) else value
        if isinstance(messages, list) and messages and all(isinstance(each, dict) and "role" in each for each in messages):
            parts[name] = messages
        else:
            other[name] = value
    return Row(number, parts, other)


def said(message: Mapping[str, Any]) -> str:
    """Return what a message says, as text."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    calls = message.get("tool_calls")
    if calls:
        return json.dumps(calls, ensure_ascii=False)
    return "" if content is None else json.dumps(content, ensure_ascii=False)
