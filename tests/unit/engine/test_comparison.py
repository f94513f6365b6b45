"""Before and after, with a sampler that says what it is told to."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tunesmith import bases
from tunesmith.data.render import Renderer
from tunesmith.domain.ports import Ask, Drawn
from tunesmith.engine.comparison import N_ROWS, Question, compare, picked


class Scripted:
    """A sampler whose base says `no` and whose tuned model says `yes`, and that ends after so many answers."""

    def __init__(self, renderer: Renderer, n_answers: int) -> None:
        self.asks: list[Ask] = []
        self._renderer, self._n_answers = renderer, n_answers

    def draw(self, asks: Sequence[Ask], on_drawn: Callable[[Drawn], None], *, stop: Callable[[], bool]) -> bool:
        self.asks = list(asks)
        end = min(self._renderer.stop_ids)
        for number, ask in enumerate(asks[: self._n_answers]):
            if stop():
                return False
            chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "yes" if ask.tuned else "no"}]
            (words,) = self._renderer.examples(chat, max_tokens=100)
            tokens = [token for token, weight in zip(words.tokens, words.weights, strict=True) if weight and token != end]
            on_drawn(Drawn(number, 0, [*tokens, end], [0.0] * (len(tokens) + 1), "stop"))
        return self._n_answers >= len(asks)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer.load(Path(bases.__file__).parent / "tunesmith-nano")


def question(text: str) -> Question:
    reference = {"role": "assistant", "content": "yes"}
    return Question([{"role": "user", "content": text}], None, None, reference, held_out=True)


def test_both_answer_the_same_question_greedily(renderer: Renderer) -> None:
    sampler = Scripted(renderer, 100)
    (row,) = compare([question("Well?")], renderer=renderer, sampler=sampler, context_length=2048, until=math.inf)
    assert (row["base"], row["tuned"], row["held_out"]) == ("no", "yes", True)
    assert row["messages"] == [{"role": "user", "content": "Well?"}]
    assert row["reference"] == {"role": "assistant", "content": "yes"}
    assert [(ask.tuned, ask.temperature, ask.n) for ask in sampler.asks] == [(False, 0.0, 1), (True, 0.0, 1)]
    assert sampler.asks[0].prompt == sampler.asks[1].prompt


def test_what_only_one_of_them_answered_in_time_is_left_out(renderer: Renderer) -> None:
    questions = [question("One?"), question("Two?")]
    found = compare(questions, renderer=renderer, sampler=Scripted(renderer, 3), context_length=2048, until=math.inf)
    assert [row["messages"][0]["content"] for row in found] == ["One?"]


def test_a_question_that_fills_the_context_is_not_asked(renderer: Renderer) -> None:
    sampler = Scripted(renderer, 100)
    assert compare([question("word " * 50)], renderer=renderer, sampler=sampler, context_length=20, until=math.inf) == []
    assert sampler.asks == []


@pytest.mark.parametrize(("n_rows", "expected"), [(1, [0]), (3, [0, 1, 2]), (16, [0, 2, 4, 6, 8, 10, 12, 14])])
def test_the_rows_shown_are_spread_over_the_file(n_rows: int, expected: list[int]) -> None:
    assert picked(n_rows) == expected
    assert len(picked(10_000)) == N_ROWS


def test_no_more_is_answered_when_the_time_is_over(renderer: Renderer) -> None:
    sampler = Scripted(renderer, 2)
    assert (
        compare([question("Well?")], renderer=renderer, sampler=sampler, context_length=2048, until=time.monotonic()) == []
    )
    assert sampler.asks
