"""Rows of a dpo file: every rule with example and message numbers."""

import io
import json
from typing import Any

import pytest

from tunesmith.data.pairs import Pair, PairForm
from tunesmith.data.rows import InvalidRows, Problems, read_rows, scan_rows

USER = {"role": "user", "content": "a"}
TOOL = {"type": "function", "function": {"name": "f"}}


def said(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def called(identity: str, arguments: str = "{}") -> dict[str, Any]:
    call = {"id": identity, "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "tool_calls": [call]}


def pair(**changes: Any) -> dict[str, Any]:
    """Return a good row with keys replaced; None drops one."""
    row = {"input": {"messages": [USER]}, "preferred_output": [said("b")], "non_preferred_output": [said("c")], **changes}
    return {key: value for key, value in row.items() if value is not None}


GOOD = pair()


def lines(*rows: object) -> io.BytesIO:
    return io.BytesIO(b"\n".join(json.dumps(row).encode() for row in rows))


def scan(*rows: object) -> tuple[list[Pair], Problems]:
    problems = Problems()
    return list(scan_rows(lines(*rows), form=PairForm(), max_line_bytes=5000, problems=problems)), problems


def test_good_rows() -> None:
    tools = {"messages": [USER], "tools": [TOOL], "parallel_tool_calls": False}
    rows, problems = scan(GOOD, pair(input=tools, preferred_output=[called("1")]), {**GOOD, "prompt": None})
    assert str(problems) == ""
    assert rows[0] == Pair(1, 1, [USER], None, None, said("b"), said("c"))
    assert (rows[1].tools, rows[1].parallel_tool_calls, rows[1].preferred) == ([TOOL], False, called("1"))
    assert rows[2].place == "Example 3"
    assert not any(row.older_names for row in rows)


def test_the_older_names_are_taken_and_marked() -> None:
    older = {"input": GOOD["input"], "preferred_completion": [said("b")], "non_preferred_completion": [said("c")]}
    mixed = {"input": GOOD["input"], "preferred_completion": [said("b")], "non_preferred_output": [said("c")]}
    rows, problems = scan(older, mixed, GOOD, {**GOOD, "preferred_completion": None})
    assert str(problems) == ""
    assert [row.older_names for row in rows] == [True, True, False, False]
    assert rows[0].preferred == said("b")


def test_a_weight_of_one_says_nothing() -> None:
    rows, _ = scan(pair(preferred_output=[said("b", weight=1)], non_preferred_output=[said("c", weight=None)]))
    assert (rows[0].preferred, rows[0].non_preferred) == (said("b"), said("c"))


IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (pair(input=None), "Example 2: 'input' is missing"),
        (pair(input=[USER]), "Example 2: input must be an object with messages"),
        (pair(input={}), "Example 2: 'input.messages' is missing"),
        (pair(input={"messages": []}), "Example 2: messages must be a list of at least one message"),
        (pair(input={"messages": [USER, {"role": "wizard"}]}),
         "Example 2, message 2 No match for discriminator 'role' and value 'wizard' (allowed values: 'system', 'developer', "
         "'user', 'assistant', 'tool', 'function')"),
        (pair(input={"messages": [USER, IMAGE]}),
         "Example 2, message 2 content[0] has type 'image_url': images are not available"),
        (pair(input={"messages": [USER], "mood": 1, "id": 2}),
         "Example 2: unknown keys in input: id, mood (known: messages, parallel_tool_calls, tools)"),
        (pair(input={"messages": [USER], "tools": [TOOL, {}]}), "Example 2: tool 2: The entry lacks 'type'"),
        (pair(input={"messages": [USER], "parallel_tool_calls": 1}),
         "Example 2: parallel_tool_calls must be true or false"),
        (pair(mood=1), "Example 2: unknown keys: mood (known: input, non_preferred_output, preferred_output)"),
        (pair(preferred_output=None), "Example 2: 'preferred_output' is missing"),
        (pair(non_preferred_output=None), "Example 2: 'non_preferred_output' is missing"),
        (pair(preferred_completion=[said("d")]),
         "Example 2: it has both preferred_output and preferred_completion; the first replaces the second"),
        (pair(preferred_output="b"), "Example 2: preferred_output must be a list of exactly one assistant message"),
        (pair(preferred_output=[]), "Example 2: preferred_output must hold exactly one assistant message, not 0"),
        (pair(non_preferred_output=[said("b"), said("c")]),
         "Example 2: non_preferred_output must hold exactly one assistant message, not 2"),
        (pair(preferred_output=[USER]),
         "Example 2: preferred_output must be an assistant message, not one of role 'user'"),
        (pair(preferred_output=["b"]), "Example 2: preferred_output: A message must be an object, not a string"),
        (pair(preferred_output=[{"role": "assistant"}]),
         "Example 2: preferred_output: content is required unless tool_calls, function_call or refusal is given"),
        (pair(preferred_output=[{"role": "assistant", "content": [{"type": "image_url"}]}]),
         "Example 2: preferred_output: content[0] has type 'image_url': images are not available"),
        (pair(preferred_output=[said("b", weight=0)]),
         "Example 2: preferred_output has weight 0: both answers are what is trained"),
        (pair(non_preferred_output=[said("b")]),
         "Example 2: preferred_output and non_preferred_output are the same: there is nothing to prefer"),
        (pair(preferred_completion=[said("c")], preferred_output=None),
         "Example 2: preferred_completion and non_preferred_output are the same: there is nothing to prefer"),
    ],
)  # fmt: skip
def test_bad_rows(row: object, text: str) -> None:
    rows, problems = scan(GOOD, row, GOOD)
    assert str(problems) == text
    assert [row.example for row in rows] == [1, 3]
    with pytest.raises(InvalidRows) as caught:
        list(read_rows(lines(GOOD, row), form=PairForm(), max_line_bytes=5000))
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("preferred", "other"),
    [
        (said("b"), {"role": "assistant", "content": [{"type": "text", "text": "b"}]}),
        (said("b", name="x"), said("b")),
        (said("no"), {"role": "assistant", "content": None, "refusal": "no"}),
        (called("1"), called("2")),
        (called("1"), {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}),
    ],
)
def test_the_same_words_are_the_same_answer_in_whatever_form(preferred: dict[str, Any], other: dict[str, Any]) -> None:
    _, problems = scan(pair(preferred_output=[preferred], non_preferred_output=[other]))
    assert str(problems).endswith("are the same: there is nothing to prefer")


@pytest.mark.parametrize("other", [said("b "), said(""), called("1"), {**called("1"), "content": "b"}])
def test_other_words_and_calls_are_another_answer(other: dict[str, Any]) -> None:
    _, problems = scan(pair(non_preferred_output=[other]))
    assert not problems
    _, problems = scan(pair(preferred_output=[called("1", '{"a": 1}')], non_preferred_output=[called("1")]))
    assert not problems
