"""How much a base thinks before it answers: the reasoning efforts of chat and of trainings, and the marks of a thought."""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

#: What begins and what ends the thinking of a base that thinks before it answers.
THINK: Final = "<think>"
THOUGHT: Final = "</think>"


class Thought(Enum):
    """Where an answer begins."""

    NO = auto()
    """With what is said."""
    MAYBE = auto()
    """With a thought, if it has one."""
    WITHIN = auto()
    """Within a thought, which the prompt has begun."""


#: Most tokens of an answer by effort: of a base without a thinking mode, and of one that thinks before it answers (thinking
#: included). An effort that is not here has what the context leaves.
N_TOKENS: Final[Mapping[str, tuple[int, int]]] = {
    "none": (256, 512),
    "minimal": (256, 512),
    "low": (512, 2048),
    "default": (512, 4096),
    "medium": (1024, 4096),
    "high": (2048, 16384),
    "xhigh": (4096, 32768),
}


def n_tokens(effort: str, *, thinks: bool, context_length: int) -> int:
    """Return the most tokens of an answer."""
    return min(context_length, N_TOKENS.get(effort, (context_length, context_length))[thinks])


def thinking(effort: str) -> bool | None:
    """Return whether the base is to think before it answers; None leaves its template's own setting."""
    if effort == "default":
        return None
    return effort not in ("none", "minimal")
