# pyright: basic
"""One drawn sample: read as an answer the way chat reads it, told to a grader, and put down for people to look at."""

import json
import random
from array import array
from dataclasses import dataclass
from typing import Any

from tunesmith.core.ids import Ids
from tunesmith.data.answers import Assembler, Said
from tunesmith.data.prompts import PromptRow
from tunesmith.data.render import Renderer
from tunesmith.data.thinking import Thought
from tunesmith.domain.ports import Drawn
from tunesmith.engine.document import Document
from tunesmith.graders.base import Grade, Sample


@dataclass(frozen=True, slots=True)
class Answer:
    """What a base said: its words and calls, without what it thought before."""

    text: str
    tool_calls: list[dict[str, Any]]
    finish_reason: str
    n_reasoning: int

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a chat message."""
        said: dict[str, Any] = {"role": "assistant", "content": self.text}
        return said | ({"tool_calls": self.tool_calls} if self.tool_calls else {})


def read(drawn: Drawn, row: PromptRow, renderer: Renderer, *, thought: Thought, seed: int, as_json: bool = False) -> Answer:
    """Return a sample as chat completions would; ids of tool calls follow from `seed`."""
    assembler = Assembler(
        drawn.sample,
        renderer.stream(skip_special_tokens=not (row.tools or thought is not Thought.NO)),
        (),
        with_tools=bool(row.tools),
        one_call=row.parallel_tool_calls is False,
        thought=thought,
        bare=() if as_json else renderer.bare_calls(row.tools),
        ids=Ids(random.Random(seed)),
    )
    said = Said(finish_reason=drawn.finish)
    for place, token in enumerate(drawn.tokens):
        last = drawn.finish if place == len(drawn.tokens) - 1 else None
        for delta in assembler.feed(token, last, is_stop=last == "stop" and token in renderer.stop_ids):
            said.add(delta)
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in said.tool_calls
    ]
    return Answer(said.text, calls, said.finish_reason or drawn.finish, assembler.n_reasoning)


def told(answer: Answer, row: PromptRow, *, as_json: bool) -> Sample:
    """Return what a grader is told; `output_json` is there only where answers are bound to a form."""
    choices = [{"index": 0, "message": answer.message, "finish_reason": answer.finish_reason}]
    sample: dict[str, Any] = {"output_text": answer.text, "choices": choices, "output_tools": answer.tool_calls}
    if as_json:
        try:
            sample["output_json"] = json.loads(answer.text)
        except (ValueError, RecursionError):
            sample["output_json"] = None
    return Sample(row.item, sample)


@dataclass(slots=True)
class Graded:
    """A sample with its grade; `advantage` is set for those that are trained on."""

    row: int
    prompt: list[int]
    drawn: Drawn
    answer: Answer
    grade: Grade
    advantage: float | None = None

    @property
    def reward(self) -> float | None:
        """Return the reward; None without a grade. An answer that lacks what the grader asks for is worth nought."""
        return 0.0 if self.grade.by_answer else self.grade.score

    def document(self) -> Document:
        """Return the sample to train on: every token that was drawn, weighted with the advantage."""
        n_prompt, n_drawn = len(self.prompt), len(self.drawn.tokens)
        return Document(
            tokens=array("l", [*self.prompt, *self.drawn.tokens]),
            lengths=(n_prompt + n_drawn,),
            trained=array("l", range(n_prompt, n_prompt + n_drawn)),
            weights=array("f", [self.advantage or 0.0] * n_drawn),
            n_trained=(n_drawn,),
            before=array("f", self.drawn.logprobs),
        )

    def record(self, row: PromptRow, *, step: int, split: str) -> dict[str, Any]:
        """Return what is put down of it."""
        return {
            "step": step,
            "split": split,
            "row": self.row + 1,
            "sample": self.drawn.sample,
            "messages": row.messages,
            "output_text": self.answer.text,
            "output_tools": self.answer.tool_calls,
            "finish_reason": self.answer.finish_reason,
            "reward": self.reward,
            "error": "; ".join(f"{flag}: {details}" for flag, details in self.grade.errors.items()) or None,
            "scores": {name: part.score for name, part in self.grade.parts.items()},
            "advantage": self.advantage,
            "prompt_tokens": len(self.prompt),
            "completion_tokens": len(self.drawn.tokens),
        }
