"""Rows of a reinforcement file: prompts, and the columns that are the grader's."""

import io
import json
from typing import Any

import pytest

from tunesmith.data.prompts import PromptForm, PromptRow
from tunesmith.data.rows import InvalidRows, Problems, read_rows, scan_rows

USER = {"role": "user", "content": "a"}
ANSWER = {"role": "assistant", "content": "b"}
TOOL = {"type": "function", "function": {"name": "f"}}
GOOD: dict[str, Any] = {"messages": [USER], "answer": 4}


def lines(*rows: object) -> io.BytesIO:
    return io.BytesIO(b"\n".join(json.dumps(row).encode() for row in rows))


def scan(*rows: object) -> tuple[list[PromptRow], Problems]:
    problems = Problems()
    return list(scan_rows(lines(*rows), form=PromptForm(), max_line_bytes=5000, problems=problems)), problems


def test_every_other_key_is_the_items() -> None:
    rows, problems = scan(
        GOOD,
        {"messages": [USER], "tools": [TOOL], "parallel_tool_calls": False, "preferred_output": {"x": [1]}, "none": None},
        {"messages": [{"role": "developer", "content": "d"}, USER, {**ANSWER, "weight": 0}, USER], "functions": 1},
        {"messages": [USER], "tools": None},
    )
    assert str(problems) == ""
    assert rows[0] == PromptRow(1, 1, [USER], None, None, {"answer": 4})
    assert (rows[1].tools, rows[1].parallel_tool_calls) == ([TOOL], False)
    assert rows[1].item == {"preferred_output": {"x": [1]}, "none": None}
    assert rows[2].item == {"functions": 1}
    assert (rows[3].item, rows[3].place) == ({}, "Example 4")


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"answer": 4}, "Example 2: 'messages' is missing"),
        ({"messages": None}, "Example 2: 'messages' is missing"),
        ({"messages": []}, "Example 2: messages must be a list of at least one message"),
        ({"messages": [USER, {"role": "user", "content": [{"type": "input_audio"}]}]},
         "Example 2, message 2 content[0] has type 'input_audio': audio are not available"),
        ({"messages": [USER, ANSWER], "answer": 4},
         "Example 2, message 2 the last message must be of role 'user', for the model to answer, not 'assistant'"),
        ({"messages": [USER, {"role": "tool", "content": "x", "tool_call_id": "1"}]},
         "Example 2, message 2 the last message must be of role 'user', for the model to answer, not 'tool'"),
        ({"messages": [{"role": "system", "content": "x"}]},
         "Example 2, message 1 the last message must be of role 'user', for the model to answer, not 'system'"),
        ({"messages": [USER], "tools": [{}]}, "Example 2: tool 1: The entry lacks 'type'"),
        ({"messages": [USER], "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {
            "name": "g", "strict": True, "parameters": {"type": "array", "uniqueItems": True}}}]},
         "Example 2: tool 2: calls of a strict function cannot be kept to its schema: Unimplemented keys: "
         '["uniqueItems"]'),
        ({"messages": [USER], "parallel_tool_calls": []}, "Example 2: parallel_tool_calls must be true or false"),
    ],
)  # fmt: skip
def test_bad_rows(row: object, text: str) -> None:
    rows, problems = scan(GOOD, row, GOOD)
    assert str(problems) == text
    assert [row.example for row in rows] == [1, 3]
    with pytest.raises(InvalidRows) as caught:
        list(read_rows(lines(GOOD, row), form=PromptForm(), max_line_bytes=5000))
    assert str(caught.value) == text
