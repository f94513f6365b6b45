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
        (
            {"system": "s", "conversations": [{"from": "System", "value": "s"}, {"from": "GPT", "value": "b"}]},
            [("system", "s"), ("assistant", "b")],
        ),
        (
            {"id": 1, "conversations": [
                {"from": "system", "value": ""}, {"from": "Human", "value": "a"}, {"from": "model", "value": "b"}]},
            [("user", "a"), ("assistant", "b")],
        ),
        ({"instruction": "i", "input": "<noinput>", "output": "o", "source": "x"}, [("user", "i"), ("assistant", "o")]),
        ({"instruction": "i", "input": None, "output": "o"}, [("user", "i"), ("assistant", "o")]),
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
        ({"conversations": []}, "a list of at least one turn"),
        ({"conversations": ["a"]}, "turn 1 is no object"),
        ({"conversations": [{"from": "wizard", "value": "a"}]}, "turn 1 is from 'wizard'; known are system, human"),
        ({"conversations": [{"from": "human", "value": None}]}, "turn 1 says nothing"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "nobody answers"),
        ({"conversations": [{"from": "tool", "value": "a"}]}, "turn 1 answers a call that nobody made"),
        (
            {"conversations": [{"from": "function_call", "value": "f()"}]},
            "turn 1 calls a function, but its call is not JSON",
        ),
        ({"conversations": [{"from": "function_call", "value": "[1]"}]}, "turn 1 calls a function without a name"),
        (
            {"conversations": [{"from": "function_call", "value": '{"name": "f"}'}, {"from": "gpt", "value": "b"}]},
            "turn 2 stands where 1 calls still want an answer",
        ),
        ({"conversations": [{"from": "gpt", "value": "b"}], "tools": "{"}, "'tools' is not JSON"),
        ({"conversations": [{"from": "gpt", "value": "b"}], "tools": "{}"}, "'tools' must be a list"),
        ({"instruction": "a"}, "'output' is missing"),
        ({"instruction": "a", "output": "b", "input": 1}, "'input' must be a text"),
        ({"instruction": "a", "output": "b", "history": [["a"]]}, "'history' must be"),
    ],
)
def test_what_is_no_chat_is_told(row: dict[str, Any], why: str) -> None:
    with pytest.raises(NotConvertible, match=why):
        said(row)


@pytest.mark.parametrize(
    "turns",
    [
        [("function_call", '{"name": "f", "arguments": {"x": 1}}'), ("observation", "2")],
        [("gpt", '<tool_call>\n{"arguments": {"x": 1}, "name": "f"}\n</tool_call>'),
         ("tool", "<tool_response>\n2\n</tool_response>")],
    ],
    ids=["observation", "hermes"],
)  # fmt: skip
def test_calls_and_their_answers_become_calls(turns: list[tuple[str, str]]) -> None:
    function = {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}
    told = [{"from": who, "value": text} for who, text in [("human", "a"), *turns, ("gpt", "two")]]
    chat = FORMATS["sharegpt"]({"conversations": told, "tools": json.dumps([function])})
    _, call, answer, last = chat["messages"]
    assert call["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x": 1}'}
    assert answer == {"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "2"}
    assert last == {"role": "assistant", "content": "two"}
    assert chat["tools"] == [{"type": "function", "function": function}]


def test_a_weight_stays_with_its_answer() -> None:
    turns = [{"from": "human", "value": "a", "weight": 0}, {"from": "gpt", "value": "b", "weight": 0}]
    messages = FORMATS["sharegpt"]({"conversations": [*turns, {"from": "gpt", "value": "c", "weight": None}]})["messages"]
    assert [message.get("weight") for message in messages] == [None, 0, None]


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
