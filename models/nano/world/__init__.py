"""The closed world that tunesmith-nano is trained on: every text is generated here, by rule, from our own words."""

import hashlib

from .document import Document, Message, Rng, Tool, system, user
from .facts import fact, reading
from .labels import classification, ticket_labels
from .memory import long_document, recall, size
from .numbers import arithmetic, comparison, story_sum
from .records import extraction
from .talk import talk, tool_call
from .wordplay import copying, listing, wording

__all__ = ["FAMILIES", "Document", "Message", "Tool", "draw", "is_held_out", "sample", "system", "tool_call", "user"]

FAMILIES = {
    "arithmetic": (arithmetic, 15),
    "story sums": (story_sum, 5),
    "comparison": (comparison, 7),
    "lists": (listing, 9),
    "text": (wording, 8),
    "copying": (copying, 6),
    "classification": (classification, 9),
    "ticket labels": (ticket_labels, 9),
    "extraction": (extraction, 11),
    "facts": (fact, 6),
    "reading": (reading, 7),
}
SIDE_FAMILIES = {"talk": (talk, 6), "recall": (recall, 1)}
P_TOOLS = 0.04
P_SECOND_TURN = 0.1
P_LONG = 0.028
N_LONG_TOKENS = (150, 1500)
HELD_OUT_SHARE = 20

_DRAWS = FAMILIES | SIDE_FAMILIES
_NAMES = list(_DRAWS)
_WEIGHTS = [weight for _, weight in _DRAWS.values()]


def is_held_out(messages: list[Message]) -> bool:
    """Say whether a prompt belongs to the one in twenty that training never sees; its text alone decides."""
    prompt = "\n".join(message["content"] for message in messages if message["role"] in {"system", "user"})
    return hashlib.sha256(prompt.encode()).digest()[0] * HELD_OUT_SHARE < 256


def draw(rng: Rng, family: str, *, held_out: bool = False) -> list[Message]:
    """Draw one conversation of a family from the training side or from the held-out side."""
    make, _ = _DRAWS[family]
    while True:
        messages = make(rng)
        if family in SIDE_FAMILIES or is_held_out(messages) == held_out:
            return messages


def _any(rng: Rng) -> list[Message]:
    return draw(rng, rng.choices(_NAMES, _WEIGHTS)[0])


def _without_system(rng: Rng) -> list[Message]:
    while True:
        messages = _any(rng)
        if messages[0]["role"] == "user":
            return messages


def _conversation(rng: Rng, n_tokens: int) -> list[Message]:
    messages: list[Message] = []
    while size(messages) < n_tokens:
        messages += _without_system(rng)
    return messages


def sample(rng: Rng) -> Document:
    """Draw one training text from the whole mixture."""
    dice = rng.random()
    if dice < P_LONG:
        n_tokens = rng.randint(*N_LONG_TOKENS)
        return long_document(rng, n_tokens, _conversation(rng, n_tokens))
    if dice < P_LONG + P_TOOLS:
        return tool_call(rng)
    messages = _any(rng)
    if rng.random() < P_SECOND_TURN:
        messages = messages + _without_system(rng)
    return Document(messages)
