# pyright: basic
"""Before and after: a few rows answered by what training began with and by what came of it, side by side.

Answers are the likeliest ones, token by token. What the time does not allow is left out.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tunesmith.core.chat import Message, Tool
from tunesmith.data.render import Renderer
from tunesmith.domain.ports import Ask, Drawing, Drawn

N_ROWS: Final = 8
#: Part of a run's time that it may take.
SHARE: Final = 0.05
#: Most tokens of an answer.
N_TOKENS: Final = 256


@dataclass(frozen=True, slots=True)
class Question:
    """What both are asked, and the answer that the row has, if it has one."""

    messages: Sequence[Message]
    tools: Sequence[Tool] | None
    parallel_tool_calls: bool | None
    reference: Message | None
    #: The row is of the validation file.
    held_out: bool


def picked(n_rows: int) -> list[int]:
    """Return the rows of a file that are shown, spread over it."""
    n = min(N_ROWS, n_rows)
    return [i * n_rows // n for i in range(n)]


def compare(
    questions: Sequence[Question], *, renderer: Renderer, sampler: Drawing, context_length: int, until: float
) -> list[dict[str, Any]]:
    """Return messages, reference and both answers of each question answered `until` then, by the monotonic clock."""
    asks: list[Ask] = []
    asked: list[Question] = []
    for question in questions:
        prompt = renderer.prompt(question.messages, question.tools, parallel_tool_calls=question.parallel_tool_calls)
        room = context_length - len(prompt)
        if room > 0:
            asked.append(question)
            asks += [Ask(prompt, 1, min(N_TOKENS, room), 0, tuned=tuned, temperature=0.0) for tuned in (False, True)]
    answers: dict[int, str] = {}

    def on_drawn(drawn: Drawn) -> None:
        tokens = drawn.tokens[:-1] if drawn.finish == "stop" and drawn.tokens[-1] in renderer.stop_ids else drawn.tokens
        answers[drawn.ask] = renderer.decode(tokens, skip_special_tokens=not asked[drawn.ask // 2].tools)

    sampler.draw(asks, on_drawn, stop=lambda: time.monotonic() > until)
    return [
        {
            "messages": list(question.messages),
            "reference": question.reference,
            "base": answers[2 * number],
            "tuned": answers[2 * number + 1],
            "held_out": question.held_out,
        }
        for number, question in enumerate(asked)
        if 2 * number in answers and 2 * number + 1 in answers
    ]
