"""Rows of other products' formats as chat rows: prompt/completion pairs, ShareGPT's conversations, Alpaca's instructions.

To add a format: a function from a row to messages that raises `NotConvertible`, and a line in `FORMATS`, `COLUMNS` and
`format_of`.
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final

Row = dict[str, Any]

#: What ShareGPT calls who speaks, in lower case.
_ROLES: Final = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "function_call": "call",
    "tool_call": "call",
    "observation": "tool",
    "tool": "tool",
    "tool_response": "tool",
    "function_response": "tool",
}
#: How Hermes' conversations write calls and what came of them.
_CALL: Final = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_CALLED: Final = re.compile(r"<tool_response>(.*?)</tool_response>", re.DOTALL)
#: How the older guides had prompts end and completions begin and end: marks that chat does not need.
_PROMPT_ENDS: Final = ("\n\n###\n\n", "\n\n####\n\n", " ->", "\n\nAgent:", "\n\nSummary:\n\n")
_COMPLETION_ENDS: Final = ("###", "END", "<|endoftext|>")
#: How Alpaca's rows say that there is no input.
_NO_INPUT: Final = ("", "<noinput>", "noinput")


class NotConvertible(ValueError):
    """A row is not of the format; the message goes on from `Line 7: `."""


def format_of(row: Row) -> str | None:
    """Return the format that a row seems to be of, None where it is none of them."""
    if "messages" in row:
        return None
    if "conversations" in row or "conversation" in row:
        return "sharegpt"
    if "instruction" in row:
        return "alpaca"
    return "prompt-completion" if {"prompt", "completion"} <= row.keys() else None


def from_pair(row: Row) -> Row:
    """Convert a prompt and its completion, without the marks that pairs were written with.

    Raises:
        NotConvertible: one is absent, or no text.
    """
    prompt, completion = _text(row, "prompt"), _text(row, "completion")
    for end in _PROMPT_ENDS:
        prompt = prompt.removesuffix(end)
    completion = completion.removeprefix(" ").rstrip("\n")
    for end in _COMPLETION_ENDS:
        completion = completion.removesuffix(end)
    return _chat(_asked(prompt.rstrip(), completion.strip()))


def from_sharegpt(row: Row) -> Row:
    """Convert `conversations`, each with `from` and `value` (or `role` and `content`), and `system` and `tools` beside them.

    Raises:
        NotConvertible: a turn is of an unknown speaker or no text, calls and their answers do not match, or nobody answers.
    """
    turns = row.get("conversations", row.get("conversation"))
    if not isinstance(turns, list) or not turns:
        raise NotConvertible("'conversations' must be a list of at least one turn")
    messages: list[Row] = [{"role": "system", "content": _text(row, "system")}] if row.get("system") else []
    pending: list[str] = []
    for number, turn in enumerate(turns, start=1):
        said = _turn(number, turn, pending)
        if pending and said and said[0]["role"] != "tool":
            raise NotConvertible(f"turn {number} stands where {len(pending)} calls still want an answer")
        for message in said:
            pending += [call["id"] for call in message.get("tool_calls", ())]
        messages += said if number > 1 or said != messages else []  # the same system message beside and inside is one
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()  # what is asked last and never answered cannot be trained on
    tools = _tools(row.get("tools"))
    return {**_chat(messages), **({"tools": tools} if tools else {})}


def left_out(row: Row, kind: str | None) -> list[str]:
    """Return a row's columns that a chat made of it has no place for."""
    return [name for name in row.keys() - COLUMNS[kind] if row[name] is not None] if kind in COLUMNS else []


def _turn(number: int, turn: Any, pending: list[str]) -> list[Row]:
    """Return the messages of a turn; one of a tool answers the calls that are pending, and takes them off."""
    if not isinstance(turn, dict):
        raise NotConvertible(f"turn {number} is no object")
    speaker = turn.get("from", turn.get("role"))
    role = _ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise NotConvertible(f"turn {number} is from {speaker!r}; known are {', '.join(_ROLES)}")
    content = turn.get("value", turn.get("content"))
    if role == "system" and content in (None, ""):
        return []
    if not isinstance(content, str) or not content.strip():
        raise NotConvertible(f"turn {number} says nothing: its 'value' must be a text")
    if role == "tool":
        told = [each.strip() for each in _CALLED.findall(content)] or [content]
        if len(told) > len(pending):
            raise NotConvertible(f"turn {number} answers a call that nobody made")
        return [{"role": "tool", "tool_call_id": pending.pop(0), "content": each} for each in told]
    if role == "call" or (role == "assistant" and _CALL.search(content)):
        calls = _CALL.findall(content) or [content]
        made = [call for text in calls for call in _calls(number, text)]
        words = _CALL.sub("", content).strip() if _CALL.search(content) else ""
        named = [{"id": f"call_{number}_{place}", **call} for place, call in enumerate(made, start=1)]
        return [{"role": "assistant", **({"content": words} if words else {}), "tool_calls": named}]
    weight = {"weight": turn["weight"]} if role == "assistant" and turn.get("weight") in (0, 1) else {}
    return [{"role": role, "content": content, **weight}]


def _calls(number: int, text: str) -> list[Row]:
    """Return the calls of a text: an object, or a list of them, with `name` and `arguments`."""
    try:
        said = json.loads(text)
    except ValueError as error:
        raise NotConvertible(f"turn {number} calls a function, but its call is not JSON: {error}") from error
    made: list[Row] = []
    for call in said if isinstance(said, list) else [said]:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise NotConvertible(f"turn {number} calls a function without a name")
        arguments = call.get("arguments", call.get("parameters", {}))
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        made.append({"type": "function", "function": {"name": call["name"], "arguments": written}})
    return made


def _tools(told: Any) -> list[Row]:
    """Return the tools beside a conversation, a list or its JSON, as chat has them."""
    try:
        tools: Any = json.loads(told) if isinstance(told, str) and told.strip() else told or []
    except ValueError as error:
        raise NotConvertible(f"'tools' is not JSON: {error}") from error
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise NotConvertible("'tools' must be a list of functions")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]


def from_alpaca(row: Row) -> Row:
    """Convert `instruction`, `input` and `output`, with `system` and `history` where they stand beside.

    Raises:
        NotConvertible: one is absent, or no text.
    """
    instruction, output = _text(row, "instruction"), _text(row, "output")
    more = row.get("input")
    if more is not None and not isinstance(more, str):
        raise NotConvertible("'input' must be a text")
    messages: list[Row] = [{"role": "system", "content": _text(row, "system")}] if row.get("system") else []
    for turn in row.get("history") or []:
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(part, str) for part in turn):
            raise NotConvertible("'history' must be a list of pairs of texts")
        messages += _asked(turn[0], turn[1])
    asked = f"{instruction}\n\n{more}" if more and more.strip().lower() not in _NO_INPUT else instruction
    return _chat([*messages, *_asked(asked, output)])


FORMATS: Final[dict[str, Callable[[Row], Row]]] = {
    "prompt-completion": from_pair,
    "sharegpt": from_sharegpt,
    "alpaca": from_alpaca,
}
#: What a format's rows are read for; other columns are left out.
COLUMNS: Final = {
    "prompt-completion": {"prompt", "completion"},
    "sharegpt": {"conversations", "conversation", "system", "tools"},
    "alpaca": {"instruction", "input", "output", "system", "history", "text"},
}


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise NotConvertible(f"'{key}' is missing" if value is None else f"'{key}' must be a text")
    if not value.strip():
        raise NotConvertible(f"'{key}' is empty")
    return value


def _asked(question: str, answer: str) -> list[Row]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _chat(messages: list[Row]) -> Row:
    if not any(message["role"] == "assistant" for message in messages):
        raise NotConvertible("nobody answers: there is nothing to train on")
    return {"messages": messages}
