"""The shapes that every family of the world shares: a message, a document and the short names that build them."""

import random
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
Tool = dict[str, Any]
Rng = random.Random


@dataclass(frozen=True)
class Document:
    """One training text: a conversation, and the tools that it may call."""

    messages: list[Message]
    tools: list[Tool] | None = None


def user(text: str) -> Message:
    """Build a user's message."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """Build an assistant's message."""
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    """Build a system message."""
    return {"role": "system", "content": text}


def ask(question: str, answer: str) -> list[Message]:
    """Build one turn: a question and its answer."""
    return [user(question), assistant(answer)]
