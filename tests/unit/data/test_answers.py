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
from tunesmith.data.answers import Assembler, Delta, Said
from tunesmith.data.calls import ToolCall
from tunesmith.data.vocabulary import TokenLogprob

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


def said(deltas: list[Delta]) -> Said:
    whole = Said()
    for delta in deltas:
        whole.add(delta)
    return whole


def text(deltas: list[Delta]) -> str:
    return said(deltas).text


def calls(deltas: list[Delta]) -> list[ToolCall]:
    return said(deltas).tool_calls


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
    made = calls(deltas)
    assert text(deltas) == "Let me see."
    assert [(call.name, call.arguments) for call in made] == [("look", '{"city": "Köln"}')] * 2
    assert len({call.id for call in made}) == 2
    assert reason(deltas) == "tool_calls"


@given(places=st.lists(st.integers(0, 200)))
def test_text_around_a_call_loses_the_layout_between_them_and_nothing_else(places: list[int]) -> None:
    deltas = told(cut(f"Let me see.\n\n{CALL}\n It is  warm.\n\nAnd dry. ", places), tools=True)
    assert text(deltas) == "Let me see.It is  warm.\n\nAnd dry. "
    assert len(calls(deltas)) == 1
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
    assert [call.arguments for call in calls(deltas)] == ["{}"]
    assert reason(deltas) == "tool_calls"


def test_one_call_at_a_time_when_asked() -> None:
    deltas = told([CALL, CALL], tools=True, one_call=True)
    assert len(calls(deltas)) == 1
    assert reason(deltas) == "tool_calls"


def test_arguments_are_told_as_they_come() -> None:
    pieces = [
        "<tool",
        '_call>\n{"name": "lo',
        'ok", "argu',
        'ments": {"a',
        '": "x</tool_call>',
        '\\"}", "b": [1, {',
        "}]",
        "}}\n</",
        "tool_call>",
    ]
    parts = [
        (part.id is not None, part.name, part.arguments) for delta in told(pieces, tools=True) if (part := delta.tool_call)
    ]
    assert parts == [
        (True, "look", ""), (False, None, '{"a'), (False, None, '": "x</tool_call>'), (False, None, '\\"}", "b": [1, {'),
        (False, None, "}]"), (False, None, "}"),
    ]  # fmt: skip


def test_a_call_that_the_length_cuts_off_has_what_there_was_of_it() -> None:
    for one_call in (False, True):
        deltas = told(["<tool_call>", '{"name": "look", "arguments": {"ci'], tools=True, finish="length", one_call=one_call)
        assert [(call.name, call.arguments) for call in calls(deltas)] == [("look", '{"ci')]
        assert (text(deltas), reason(deltas)) == ("", "length")


@pytest.mark.parametrize(
    ("written", "arguments", "rest"),
    [
        ('<tool_call>{"name": "f", "arguments": {"a": 1</tool_call>!', '{"a": 1', "!"),
        ('<tool_call>{"name": "f", "arguments": {"a": "b\n</tool_call>!', '{"a": "b\n', "!"),
        ('<tool_call>{"name": "f", "arguments": {"a": [1}}</tool_call>!', '{"a": [1}}', "!"),
        ('<tool_call>{"name": "f", "parameters": {"a": 1}, "id": 3}</tool_call>!', '{"a": 1}', "!"),
        ('<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>!', '{"a": 1}', "!"),
        ('<tool_call>{"name": "f", "arguments": {}}!', "{}", "!"),
        ('<tool_call>{"name": "f"}</tool_call>', "{}", ""),
        ('<tool_call>{"name": "f", "arguments": {}}', "{}", ""),
    ],
)
@given(places=st.lists(st.integers(0, 70)))
def test_a_call_is_read_however_it_is_written(written: str, arguments: str, rest: str, places: list[int]) -> None:
    deltas = told(cut(written, places), tools=True)
    assert [(call.name, call.arguments) for call in calls(deltas)] == [("f", arguments)]
    assert text(deltas) == rest


@given(places=st.lists(st.integers(0, 120)))
def test_a_call_may_begin_where_the_last_one_was_not_closed(places: list[int]) -> None:
    open_ = '<tool_call>{"name": "f", "arguments": {}}'
    assert [call.name for call in calls(told(cut(f"{open_}\n{open_}</tool_call>", places), tools=True))] == ["f", "f"]


@given(whole=st.text(max_size=40), places=st.lists(st.integers(0, 60)), tools=st.booleans())
def test_nothing_is_lost_where_nothing_stops(whole: str, places: list[int], tools: bool) -> None:
    if "</s>" not in whole:
        assert text(told(cut(whole, places), ("</s>",), tools=tools)) == whole


def scored(pieces: list[str], stops: tuple[str, ...] = (), *, tools: bool = False) -> list[Delta]:
    """Return the deltas of pieces that are each fed with a log-probability of their own number."""
    assembler = Assembler(0, Pieces(pieces), stops, with_tools=tools, ids=Ids(random.Random(1)))  # type: ignore[arg-type]
    deltas: list[Delta] = []
    for token, piece in enumerate(pieces):
        deltas += assembler.feed(token, None, is_stop=False, scored=TokenLogprob(piece.encode(), -float(token)))
    return deltas + assembler.feed(-1, "stop", is_stop=True)


@given(whole=st.text("ab<", max_size=20), places=st.lists(st.integers(0, 30)))
def test_each_token_is_told_once_with_the_text_that_it_begins(whole: str, places: list[int]) -> None:
    pieces = cut(whole, places)
    deltas = scored(pieces, ("<<<",))
    told = [token for delta in deltas for token in delta.logprobs]
    assert [token.logprob for token in told] == [-float(number) for number in range(len(told))]
    written = "".join(token.text for token in told)
    assert written.startswith(text(deltas))
    assert len(written) - len(told[-1].text if told else "") <= len(text(deltas))


def test_only_tokens_of_the_text_are_told() -> None:
    pieces = ["Let", " me", " see", ".\n", "<tool_", f"call>{CALL[11:-1]}", ">\n", " Done", ".", "E", "ND", "x"]
    deltas = scored(pieces, ("END",), tools=True)
    assert text(deltas) == "Let me see.Done."
    assert [token.text for delta in deltas for token in delta.logprobs] == ["Let", " me", " see", ".\n", " Done", "."]
    assert all(bool(delta.text) == bool(delta.logprobs) for delta in deltas)


def test_tokens_of_one_character_are_told_together() -> None:
    deltas = scored(["a", "", "", "€", "b"])
    assert [len(delta.logprobs) for delta in deltas if delta.text] == [1, 3, 1]


def test_what_looked_like_a_call_is_told_with_its_tokens() -> None:
    pieces = ["One\n", " <tool", "_call>", "two</tool_call>", " three"]
    deltas = scored(pieces, tools=True)
    assert text(deltas) == "".join(pieces)
    assert [token.text for delta in deltas for token in delta.logprobs] == pieces


BARE = '{"name": "look", "parameters": {"city": "Köln", "at": {"x": [1]}}}'


@given(places=st.lists(st.integers(0, 80)), before=st.sampled_from(["", "\n ", "\n"]))
@pytest.mark.parametrize("kind", ["", '"type": "function", '])
def test_a_whole_answer_is_a_call_without_a_mark(places: list[int], before: str, kind: str) -> None:
    deltas = told(cut(before + BARE.replace('{"name', f'{{{kind}"name') + "\n", places), tools=True, bare=["other", "look"])
    (call,) = calls(deltas)
    assert (call.name, json.loads(call.arguments)) == ("look", {"city": "Köln", "at": {"x": [1]}})
    assert (text(deltas), reason(deltas)) == ("", "tool_calls")


@given(places=st.lists(st.integers(0, 80)))
@pytest.mark.parametrize(
    "whole",
    [
        BARE[:-1],
        BARE + " so be it",
        BARE + BARE,
        "Call " + BARE,
        BARE.replace("look", "fly"),
        BARE.replace("parameters", "values"),
        '{"name": "look", "parameters": "none"}',
        '{"names": []}',
        "{",
        "",
    ],
)
def test_what_is_no_such_call_is_text(whole: str, places: list[int]) -> None:
    deltas = told(cut(whole, places), tools=True, bare=["look"])
    assert calls(deltas) == []
    assert text(deltas) == whole
    assert reason(deltas) == "stop"


def test_it_is_held_back_only_for_so_long_as_it_may_be_one() -> None:
    given = told(["{", '"name": "look"', ', "values": 1', ', "more": 2}'], tools=True, bare=["look"])
    assert [delta.text for delta in given if delta.text] == ['{"name": "look", "values": 1', ', "more": 2}']
    stopped = told([BARE[:20], BARE[20:], "END", " more"], ("END",), tools=True, bare=["look"])
    assert (text(stopped), calls(stopped)) == (BARE, [])
