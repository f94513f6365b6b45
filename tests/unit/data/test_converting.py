"""Other products' rows as chat, and what cannot be one."""

import io
import json
from typing import Any

import pytest

from tunesmith.data.arrays import elements
from tunesmith.data.converting import FORMATS, NotConvertible, format_of
from tunesmith.data.jsonl import NotJson


def said(row: dict[str, Any]) -> list[tuple[str, str]]:
    kind = format_of(row)
    assert kind is not None
    chat = FORMATS[kind](row)
    assert list(chat) == ["messages"]
    return [(message["role"], message["content"]) for message in chat["messages"]]


@pytest.mark.parametrize(
    ("row", "chat"),
    [
        ({"prompt": "1 + 1?\n\n###\n\n", "completion": " two END"}, [("user", "1 + 1?"), ("assistant", "two")]),
        ({"prompt": "a ->", "completion": " b\n"}, [("user", "a"), ("assistant", "b")]),
        (
            {"system": "s", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            [("system", "s"), ("user", "a"), ("assistant", "b")],
        ),
        (
            {"conversation": [
                {"role": "user", "content": "a"}, {"from": "gpt", "value": "b"}, {"from": "user", "value": "c"}]},
            [("user", "a"), ("assistant", "b")],
        ),
        ({"instruction": "Add.", "input": "1, 1", "output": "2"}, [("user", "Add.\n\n1, 1"), ("assistant", "2")]),
        (
            {"instruction": "i", "input": "", "output": "o", "history": [["a", "b"]], "text": "all of it"},
            [("user", "a"), ("assistant", "b"), ("user", "i"), ("assistant", "o")],
        ),
    ],
)  # fmt: skip
def test_rows_become_chats(row: dict[str, Any], chat: list[tuple[str, str]]) -> None:
    assert said(row) == chat


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "a", "completion": ""}, "'completion' is empty"),
        ({"prompt": "a", "completion": 1}, "'completion' must be a text"),
        ({"prompt": "a", "completion": "b", "weight": 0}, "it has weight beside completion, prompt"),
        ({"conversations": []}, "a list of at least one turn"),
        ({"conversations": ["a"]}, "turn 1 is no object"),
        ({"conversations": [{"from": "wizard", "value": "a"}]}, "turn 1 is from 'wizard'; known are system, human"),
        ({"conversations": [{"from": "human", "value": None}]}, "turn 1 says nothing"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "nobody answers"),
        ({"instruction": "a"}, "'output' is missing"),
        ({"instruction": "a", "output": "b", "input": 1}, "'input' must be a text"),
        ({"instruction": "a", "output": "b", "history": [["a"]]}, "'history' must be"),
    ],
)
def test_what_is_no_chat_is_told(row: dict[str, Any], why: str) -> None:
    with pytest.raises(NotConvertible, match=why):
        said(row)


def test_formats_are_told_apart() -> None:
    assert [format_of(row) for row in ({"messages": []}, {"a": 1}, {"prompt": "a"})] == [None, None, None]


class Dripping(io.BytesIO):
    """Gives a few bytes at a time, so that characters and values are cut anywhere."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(3)


def test_an_array_is_read_element_by_element() -> None:
    rows = [{"a": "é" * n, "b": [n, {"c": "]"}]} for n in range(5)]
    text = b"\xef\xbb\xbf" + json.dumps(rows, ensure_ascii=False, indent=1).encode()
    assert list(elements(Dripping(text), max_bytes=1000)) == list(enumerate(rows, start=1))
    assert list(elements(io.BytesIO(b" [ ] "), max_bytes=9)) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{}", "is no JSON array"),
        (b"[{} {}]", "Behind element 1 there is neither"),
        (b"[{}", "Behind element 1"),
        (b'[{"a": ', "Element 1 is not valid JSON"),
        (b'["\xff"]', "not valid UTF-8"),
        (b'["' + b"a" * 50 + b'"]', "Element 1 is longer than 20 bytes"),
        (b"[" * 100_000, "nested too deep"),
    ],
)
def test_a_broken_array_is_told(text: bytes, why: str) -> None:
    with pytest.raises(NotJson, match=why):
        list(elements(Dripping(text) if b"aaa" in text else io.BytesIO(text), max_bytes=20))
