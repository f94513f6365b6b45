"""Rows of other products' formats as chat rows: prompt/completion pairs, ShareGPT's conversations, Alpaca's instructions.

To add a format: a function from a row to messages that raises `NotConvertible`, and a line in `FORMATS` and `format_of`.
"""

from collections.abc import Callable
from typing import Any, Final

Row = dict[str, Any]

#: What ShareGPT calls who speaks.
_ROLES: Final = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "assistant": "assistant",
}
#: How the older guides had prompts end and completions begin and end: marks that chat does not need.
_PROMPT_ENDS: Final = ("\n\n###\n\n", "\n\n####\n\n", " ->", "\n\nAgent:", "\n\nSummary:\n\n")
_COMPLETION_ENDS: Final = ("###", "END", "<|endoftext|>")


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
    _only(row, {"prompt", "completion"})
    for end in _PROMPT_ENDS:
        prompt = prompt.removesuffix(end)
    completion = completion.removeprefix(" ").rstrip("\n")
    for end in _COMPLETION_ENDS:
        completion = completion.removesuffix(end)
    return _chat([("user", prompt.rstrip()), ("assistant", completion.strip())])


def from_sharegpt(row: Row) -> Row:
    """Convert `conversations`, each with `from` and `value` (or `role` and `content`), and `system` beside them.

    Raises:
        NotConvertible: a turn is of an unknown speaker or no text, or nobody answers.
    """
    turns = row.get("conversations", row.get("conversation"))
    if not isinstance(turns, list) or not turns:
        raise NotConvertible("'conversations' must be a list of at least one turn")
    messages: list[tuple[str, str]] = []
    if row.get("system"):
        messages.append(("system", _text(row, "system")))
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict):
            raise NotConvertible(f"turn {number} is no object")
        speaker = turn.get("from", turn.get("role"))
        role = _ROLES.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            raise NotConvertible(f"turn {number} is from {speaker!r}; known are {', '.join(_ROLES)}")
        content = turn.get("value", turn.get("content"))
        if not isinstance(content, str) or not content.strip():
            raise NotConvertible(f"turn {number} says nothing: its 'value' must be a text")
        messages.append((role, content))
    while messages and messages[-1][0] != "assistant":
        messages.pop()  # what is asked last and never answered cannot be trained on
    return _chat(messages)


def from_alpaca(row: Row) -> Row:
    """Convert `instruction`, `input` and `output`, with `system` and `history` where they stand beside.

    Raises:
        NotConvertible: one is absent, or no text.
    """
    _only(row, {"instruction", "input", "output", "system", "history", "text"})
    instruction, output = _text(row, "instruction"), _text(row, "output")
    more = row.get("input")
    if more is not None and not isinstance(more, str):
        raise NotConvertible("'input' must be a text")
    messages: list[tuple[str, str]] = []
    if row.get("system"):
        messages.append(("system", _text(row, "system")))
    for turn in row.get("history") or []:
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(part, str) for part in turn):
            raise NotConvertible("'history' must be a list of pairs of texts")
        messages += [("user", turn[0]), ("assistant", turn[1])]
    asked = f"{instruction}\n\n{more}" if more and more.strip() else instruction
    return _chat([*messages, ("user", asked), ("assistant", output)])


FORMATS: Final[dict[str, Callable[[Row], Row]]] = {
    "prompt-completion": from_pair,
    "sharegpt": from_sharegpt,
    "alpaca": from_alpaca,
}


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise NotConvertible(f"'{key}' is missing" if value is None else f"'{key}' must be a text")
    if not value.strip():
        raise NotConvertible(f"'{key}' is empty")
    return value


def _only(row: Row, known: set[str]) -> None:
    unknown = sorted(key for key in row.keys() - known if row[key] is not None)
    if unknown:
        raise NotConvertible(f"it has {', '.join(unknown)} beside {', '.join(sorted(known))}: what are they for?")


def _chat(messages: list[tuple[str, str]]) -> Row:
    if not any(role == "assistant" for role, _ in messages):
        raise NotConvertible("nobody answers: there is nothing to train on")
    return {"messages": [{"role": role, "content": content} for role, content in messages]}
