"""Rows of a supervised file: every rule with example and message numbers, in the words of the contract."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.rows import ChatForm, InvalidRows, Problems, Row, read_rows, scan_rows

GOOD: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
FORM = ChatForm()
TOOL = {"type": "function", "function": {"name": "f"}}


def lines(*rows: object) -> io.BytesIO:
    return io.BytesIO(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows))


def scan(*rows: object, n_shown: int = 5) -> tuple[list[Row], Problems]:
    problems = Problems(n_shown=n_shown)
    return list(scan_rows(lines(*rows), form=FORM, max_line_bytes=1000, problems=problems, file_id="file-1")), problems


def test_good_rows_in_their_order() -> None:
    rows = list(
        read_rows(
            lines(
                GOOD, b"", {**GOOD, "tools": [TOOL], "parallel_tool_calls": False}, {**GOOD, "functions": [{"name": "f"}]}
            ),
            form=FORM,
            max_line_bytes=1000,
        )
    )
    assert [(row.example, row.line, row.place) for row in rows] == [
        (1, 1, "Example 1"),
        (2, 3, "Example 2 (line 3)"),
        (3, 4, "Example 3 (line 4)"),
    ]
    assert rows[0].messages == GOOD["messages"]
    assert (rows[0].tools, rows[0].parallel_tool_calls) == (None, None)
    assert (rows[1].tools, rows[1].parallel_tool_calls) == ([TOOL], False)
    assert rows[2].tools == [TOOL]


def test_nulls_of_data_set_libraries_are_absent() -> None:
    (row,) = read_rows(
        lines({**GOOD, "tools": None, "prompt": None, "parallel_tool_calls": None}), form=FORM, max_line_bytes=1000
    )
    assert row.tools is None
    (row,) = read_rows(lines({**GOOD, "tools": []}), form=FORM, max_line_bytes=1000)
    assert row.tools is None


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"messages": [{"role": "user", "content": "a"}, {"content": "b"}]},
         "Example 2, message 2 Discriminator 'role' is missing in value"),
        ({"messages": [{"role": "wizard", "content": "a"}]},
         "Example 2, message 1 No match for discriminator 'role' and value 'wizard' (allowed values: 'system', 'developer', "
         "'user', 'assistant', 'tool', 'function')"),
        ({"messages": [*GOOD["messages"], {"role": "assistant", "content": "b", "weight": 0.5}]},
         "Example 2, message 3 weight must be 0 or 1, not 0.5"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, GOOD["messages"][1]]},
         "Example 2, message 1 content[0] has type 'image_url': images are not available"),
        ({"messages": [{"role": "user", "content": "a"}]}, "Example 2: trains on nothing: it has no assistant message"),
        ({"messages": [{**GOOD["messages"][1], "weight": 0}]},
         "Example 2: trains on nothing: every assistant message has weight 0"),
        ({"messages": []}, "Example 2: messages must be a list of at least one message"),
        ({"rows": []}, "Example 2: unknown keys: rows (known: functions, messages, parallel_tool_calls, tools)"),
        ({"tools": []}, "Example 2: 'messages' is missing"),
        ({**GOOD, "weight": 1, "id": 7},
         "Example 2: unknown keys: id, weight (known: functions, messages, parallel_tool_calls, tools)"),
        ({**GOOD, "parallel_tool_calls": "no"}, "Example 2: parallel_tool_calls must be true or false"),
        ({**GOOD, "tools": [TOOL, {}]}, "Example 2: tool 2: The entry lacks 'type'"),
        ({**GOOD, "tools": {}}, "Example 2: tools must be a list, not an object"),
        ({**GOOD, "functions": [{"name": ""}]},
         "Example 2: function 1: A function's name must be 1 to 64 letters, digits, underscores or dashes, not ''"),
        ({**GOOD, "functions": []}, "Example 2: functions must be a list of 1 to 128 functions"),
        ({**GOOD, "functions": [{"name": "f"}], "tools": [TOOL]},
         "Example 2: it has both tools and functions; tools replace functions"),
        (b"{",
             "Line 2 is not valid JSON: EOF while parsing an object at column 1; it begins with '{'; "
             "an object stands on one line"),
        (b'{"messages": "\xff"}', "Line 2 is not valid UTF-8: byte 0xff at position 15"),
        (b"[]", "Line 2 is JSON but not a dictionary: it begins with '[]'"),
        (b" " * 1001,
             "Line 2 is longer than 1,000 bytes, the limit of this server (its setting max_line_bytes): each example "
             "is a line of its own"),
    ],
)  # fmt: skip
def test_bad_rows(row: object, text: str) -> None:
    rows, problems = scan(GOOD, row, GOOD)
    assert str(problems) == text
    assert [row.example for row in rows] == [1, 3]
    with pytest.raises(InvalidRows) as caught:
        list(read_rows(lines(GOOD, row, GOOD), form=FORM, max_line_bytes=1000))
    assert str(caught.value) == text


def test_a_bad_last_row_is_no_silent_end() -> None:
    with pytest.raises(InvalidRows):
        list(read_rows(lines(GOOD, {"messages": []}), form=FORM, max_line_bytes=1000))


def test_numbers_with_blank_lines_tell_both() -> None:
    _, problems = scan(GOOD, b"", {"messages": []})
    assert str(problems).startswith("Example 2 (line 3): messages must")


def test_the_first_few_problems_and_how_many_more() -> None:
    _, problems = scan(GOOD, *[{"messages": [], "n": n} for n in range(1200)], n_shown=2)
    assert problems.n_total == 1200
    assert len(problems.texts) == 2
    assert str(problems).endswith("; and 1,198 more")
    assert str(problems).startswith("Example 2: unknown keys: n ")


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            {"input": {"messages": []}, "preferred_output": [], "non_preferred_output": []},
            "Invalid file format. Input file file-1 is in the fine-tune-preference format, but the specified "
            "fine-tuning job is not using 'dpo' as the training method (provided method=supervised). ",
        ),
        ({"prompt": "a", "completion": "b"}, "Invalid file format. Input file file-1 holds prompt/completion pairs"),
        ({"text": "a"}, "Unexpected file format, expected either prompt/completion pairs or chat messages."),
        ({}, "Unexpected file format, expected either prompt/completion pairs or chat messages."),
    ],
)
def test_a_file_of_another_format(row: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRows) as caught:
        scan(row)
    assert str(caught.value).startswith(text)
    with pytest.raises(InvalidRows, match=r"^Unexpected|The file"):
        list(read_rows(lines(row), form=FORM, max_line_bytes=1000))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["role", "content", "name", "tool_calls", "function_call", "weight", "refusal", "type", "text", "tool_call_id"]
)
ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool", "function", "wizard"])
CALLS = st.lists(
    st.fixed_dictionaries({}, optional={"id": JSON, "type": st.just("function") | JSON, "function": JSON}), max_size=2
)
PARTS = st.lists(
    st.fixed_dictionaries({}, optional={"type": st.sampled_from(["text", "image_url"]), "text": JSON}) | JSON, max_size=2
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": ROLES}, optional={"content": st.text(max_size=4) | PARTS | JSON, "tool_calls": CALLS | JSON}
    )
    | st.dictionaries(KEYS, JSON, max_size=4)
    | JSON,
    max_size=3,
)
ROWS = st.fixed_dictionaries({}, optional={"messages": MESSAGES | JSON, "tools": JSON, "functions": JSON, "input": JSON})


class Chunked(io.RawIOBase):
    """A stream that returns as few bytes at a time as it likes."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        self._content, self._sizes, self._at, self._turn = content, sizes, 0, 0

    def read(self, size: int = -1, /) -> bytes:
        n_bytes = self._sizes[self._turn % len(self._sizes)]
        self._turn += 1
        piece = self._content[self._at : self._at + n_bytes]
        self._at += n_bytes
        return piece


@given(
    rows=st.lists(ROWS.map(lambda row: json.dumps(row).encode()) | st.binary(max_size=12), max_size=6),
    sizes=st.lists(st.integers(1, 64), min_size=1, max_size=3),
)
def test_any_chunking_gives_the_same_rows_and_no_undeclared_error(rows: list[bytes], sizes: list[int]) -> None:
    content = b"\n".join(rows)

    def outcome(stream: Any) -> object:
        problems = Problems(n_shown=100)
        found: list[Row] = []
        try:
            found.extend(scan_rows(stream, form=FORM, max_line_bytes=200, problems=problems))
        except InvalidRows as error:
            return str(error)
        return found, problems.n_total, problems.texts

    assert outcome(Chunked(content, sizes)) == outcome(io.BytesIO(content))
