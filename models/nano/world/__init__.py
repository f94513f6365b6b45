"""The closed world that tunesmith-nano is trained on: every text is generated here, by rule, from our own words."""

import hashlib
from dataclasses import dataclass

from .document import Document, Message, Rng, Tool, system, user
from .facts import fact, reading
from .labels import classification, ticket_labels
from .memory import long_document, recall, short_notes, size
from .numbers import arithmetic, comparison, drill, story_sum
from .records import extraction
from .talk import talk, tool_call
from .wordplay import copying, listing, wording

__all__ = [
    "BROAD",
    "EXERCISE",
    "FAMILIES",
    "Document",
    "Message",
    "Mixture",
    "Tool",
    "draw",
    "is_held_out",
    "sample",
    "system",
    "tool_call",
    "user",
]

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
DRILLS = {"drill": drill, "notes": short_notes}
HELD_OUT_SHARE = 20


@dataclass(frozen=True)
class Mixture:
    """How often each family is drawn, and the shares of tool calls, second turns and long texts."""

    weights: dict[str, int]
    p_tools: float
    p_second_turn: float
    p_long: float
    n_long_tokens: tuple[int, int] = (150, 1500)


BROAD = Mixture({name: weight for name, (_, weight) in (FAMILIES | SIDE_FAMILIES).items()}, 0.04, 0.1, 0.028)
EXERCISE = Mixture(
    {
        "arithmetic": 17,
        "drill": 9,
        "story sums": 6,
        "comparison": 5,
        "lists": 6,
        "text": 5,
        "copying": 2,
        "classification": 6,
        "ticket labels": 8,
        "extraction": 6,
        "facts": 13,
        "reading": 12,
        "notes": 5,
        "talk": 4,
        "recall": 2,
    },
    0.02,
    0.05,
    0.008,
)


def is_held_out(messages: list[Message]) -> bool:
    """Say whether a prompt belongs to the one in twenty that training never sees; its text alone decides."""
    prompt = "\n".join(message["content"] for message in messages if message["role"] in {"system", "user"})
    return hashlib.sha256(prompt.encode()).digest()[0] * HELD_OUT_SHARE < 256


def draw(rng: Rng, family: str, *, held_out: bool = False) -> list[Message]:
    """Draw one conversation of a family from the training side or from the held-out side."""
    if family in DRILLS:
        return DRILLS[family](rng)
    make, _ = FAMILIES.get(family) or SIDE_FAMILIES[family]
    while True:
        messages = make(rng)
        if family in SIDE_FAMILIES or is_held_out(messages) == held_out:
            return messages


def _any(rng: Rng, mixture: Mixture) -> list[Message]:
    return draw(rng, rng.choices(list(mixture.weights), list(mixture.weights.values()))[0])


def _without_system(rng: Rng, mixture: Mixture) -> list[Message]:
    while True:
        messages = _any(rng, mixture)
        if messages[0]["role"] == "user":
            return messages


def _conversation(rng: Rng, mixture: Mixture, n_tokens: int) -> list[Message]:
    messages: list[Message] = []
    while size(messages) < n_tokens:
        messages += _without_system(rng, mixture)
    return messages


def sample(rng: Rng, mixture: Mixture = BROAD) -> Document:
    """Draw one training text from a mixture."""
    dice = rng.random()
    if dice < mixture.p_long:
        n_tokens = rng.randint(*mixture.n_long_tokens)
        return long_document(rng, n_tokens, _conversation(rng, mixture, n_tokens))
    if dice < mixture.p_long + mixture.p_tools:
        return tool_call(rng)
    messages = _any(rng, mixture)
    if rng.random() < mixture.p_second_turn:
        messages = messages + _without_system(rng, mixture)
    return Document(messages)
