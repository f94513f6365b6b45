"""Sampled tokens become text, stop strings and tool calls, whatever way the text is cut into tokens."""

import json
import random
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.ids import Ids
from tunesmith.data.answers import Assembler, Delta

CALL = '<tool_call>\n{"name": "look", "arguments": {"city": "Köln"}}\n</tool_call>'


@dataclass
class Pieces:
    """A tokenizer whose token i is the i-th piece of a text."""

    pieces: list[str]

    def step(self, id: int) -> str:
        return self.pieces[id]


def told(
    pieces: list[str], stops: tuple[str, ...] = (), *, tools: bool = False, finish: str = "stop", **knobs: Any
) -> list[Delta]:
    assembler = Assembler(
        0, Pieces(pieces), stops, with_tools=tools, ids=Ids(random.Random(1)), **knobs  # type: ignore[arg-type]
    )  # fmt: skip
    deltas: list[Delta] = []
    for token in range(len(pieces)):
        deltas += assembler.feed(token, None, is_stop=False)
    if finish == "length":
        return deltas + assembler.feed(len(pieces) - 1, "length", is_stop=True)
    return deltas + assembler.feed(-1, "stop", is_stop=True)


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def reason(deltas: list[Delta]) -> str | None:
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    return deltas[-1].finish_reason


def cut(whole: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(whole), *(place % (len(whole) + 1) for place in places)})
    return [whole[start:end] for start, end in pairwise(edges)]


def test_text_comes_as_it_is_sampled() -> None:
    deltas = told(["Hel", "lo", " you"])
    assert [delta.text for delta in deltas] == ["Hel", "lo", " you", ""]
    assert reason(deltas) == "stop"


@given(places=st.lists(st.integers(0, 200)))
def test_a_stop_string_ends_the_text_before_itself_however_it_is_cut(places: list[int]) -> None:
    deltas = told(cut("one ENE two END three", places), ("END", "never"))
    assert text(deltas) == "one ENE two "
    assert reason(deltas) == "stop"


def test_the_first_of_several_stop_strings_wins() -> None:
    assert text(told(["a.b", "\n\nc"], ("\n\n", "."))) == "a"


@given(places=st.lists(st.integers(0, 200)))
def test_tool_calls_are_told_apart_however_they_are_cut(places: list[int]) -> None:
    deltas = told(cut(f"Let me see.\n{CALL}\n{CALL}", places), tools=True)
    calls = [delta.tool_call for delta in deltas if delta.tool_call is not None]
    assert text(deltas) == "Let me see."
    assert [call.name for call in calls] == ["look", "look"]
    assert json.loads(calls[0].arguments) == {"city": "Köln"}
    assert len({call.id for call in calls}) == 2
    assert reason(deltas) == "tool_calls"


@given(places=st.lists(st.integers(0, 200)))
def test_text_around_a_call_loses_the_layout_between_them_and_nothing_else(places: list[int]) -> None:
    deltas = told(cut(f"Let me see.\n\n{CALL}\n It is  warm.\n\nAnd dry. ", places), tools=True)
    assert text(deltas) == "Let me see.It is  warm.\n\nAnd dry. "
    assert sum(delta.tool_call is not None for delta in deltas) == 1
    no_call = "One\n <tool_call>two</tool_call> three"
    assert text(told(cut(no_call, places), tools=True)) == no_call


def test_without_tools_a_tool_call_is_text() -> None:
    deltas = told([CALL])
    assert text(deltas) == CALL
    assert reason(deltas) == "stop"


@pytest.mark.parametrize("body", ["not json", '{"arguments": {}}', '{"name": 3}', "[]", ""])
def test_what_is_no_call_after_all_is_text(body: str) -> None:
    deltas = told(["<tool_call>", body, "</tool_call>", "!"], tools=True)
    assert text(deltas) == f"<tool_call>{body}</tool_call>!"
    assert reason(deltas) == "stop"


def test_a_call_cut_off_by_the_length_is_text_and_length() -> None:
    deltas = told(["<tool_call>", '{"name": "lo'], tools=True, finish="length")
    assert text(deltas) == '<tool_call>{"name": "lo'
    assert reason(deltas) == "length"


def test_a_call_that_ends_with_the_answer_needs_no_closing_mark() -> None:
    deltas = told(["<tool_call>", '{"name": "look", "arguments": "{}"}'], tools=True)
    assert [delta.tool_call.arguments for delta in deltas if delta.tool_call] == ["{}"]
    assert reason(deltas) == "tool_calls"


def test_one_call_at_a_time_when_asked() -> None:
    deltas = told([CALL, CALL], tools=True, one_call=True)
    assert sum(delta.tool_call is not None for delta in deltas) == 1
    assert reason(deltas) == "tool_calls"


@given(whole=st.text(max_size=40), places=st.lists(st.integers(0, 60)), tools=st.booleans())
def test_nothing_is_lost_where_nothing_stops(whole: str, places: list[int], tools: bool) -> None:
    if "</s>" not in whole:
        assert text(told(cut(whole, places), ("</s>",), tools=tools)) == whole
