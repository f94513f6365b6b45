"""Every rule of a message and a tool, with the words a user reads."""

import time
from typing import Any

import pytest

from tunesmith.core.chat import InvalidMessage, check_functions, check_messages, check_tools, modern, text_of

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TEXT = {"type": "text", "text": "a"}


def call(**changes: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{**CALL, **changes}]}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "system", "content": "a"},
        {"role": "developer", "content": [TEXT], "name": "d"},
        {"role": "user", "content": [TEXT, TEXT]},
        {"role": "user", "content": "", "name": None},
        {"role": "user", "content": [{**TEXT, "prompt_cache_breakpoint": {"mode": "explicit"}}]},
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "a", "name": "b", "refusal": None, "audio": None, "annotations": []},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{"}, "tool_calls": None},
        call(),
        {"role": "tool", "content": [TEXT], "tool_call_id": "call_1"},
        {"role": "function", "content": None, "name": "f"},
        {"role": "user", "content": "a", "tool_calls": None, "weight": None},
    ],
)
def test_good_messages(message: dict[str, Any]) -> None:
    messages = [message]
    assert check_messages(messages) is messages
    assert check_messages(messages, training=True) is messages


def test_null_fields_that_a_role_does_not_have_are_dropped() -> None:
    assert check_messages([{"role": "user", "content": "a", "tool_calls": None}]) == [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(
    ("message", "words", "param"),
    [
        ("hello", "A message must be an object, not a string", "messages[1]"),
        ({"content": "a"}, "Discriminator 'role' is missing in value", "messages[1].role"),
        (
            {"role": "wizard", "content": "a"},
            "discriminator 'role' and value 'wizard' (allowed values: 'system',",
            "messages[1].role",
        ),
        ({"role": ["user"], "content": "a"}, "No match for discriminator 'role' and value ['user']", "messages[1].role"),
        ({"role": "user"}, "content is required", "messages[1].content"),
        ({"role": "user", "content": None}, "content is required", "messages[1].content"),
        ({"role": "user", "content": 3}, "must be a string or a list of parts, not a number", "messages[1].content"),
        ({"role": "user", "content": []}, "content must have at least one part", "messages[1].content"),
        ({"role": "user", "content": ["a"]}, "content[0] must be an object, not a string", "messages[1].content[0]"),
        (
            {"role": "user", "content": [{"text": "a"}]},
            "content[0] has type None; known here: 'text'",
            "messages[1].content[0]",
        ),
        (
            {"role": "user", "content": [TEXT, {"type": "text"}]},
            "content[1].text is required",
            "messages[1].content[1].text",
        ),
        ({"role": "user", "content": [{**TEXT, "x": 1}]}, "Unknown field 'x' in content[0]", "messages[1].content[0].x"),
        ({"role": "user", "content": "a", "name": 3}, "name must be a string, not a number", "messages[1].name"),
        (
            {"role": "user", "content": "a", "mood": 1},
            "Unknown field 'mood' in a message of role 'user'",
            "messages[1].mood",
        ),
        ({"role": "assistant"}, "content is required unless tool_calls", "messages[1].content"),
        ({"role": "assistant", "content": None}, "content is required unless tool_calls", "messages[1].content"),
        ({"role": "assistant", "content": "a", "refusal": "b"}, "either content or a refusal", "messages[1].refusal"),
        ({"role": "assistant", "refusal": True}, "refusal must be a string, not a boolean", "messages[1].refusal"),
        ({"role": "assistant", "content": "a", "audio": {"id": "x"}}, "audio of an assistant message", "messages[1].audio"),
        ({"role": "assistant", "tool_calls": []}, "at least one call", "messages[1].tool_calls"),
        ({"role": "assistant", "tool_calls": ["f"]}, "must be an object", "messages[1].tool_calls[0]"),
        (call(id=3), "tool_calls[0].id must be a string, not a number", "messages[1].tool_calls[0].id"),
        (call(type="gadget"), "type must be 'function', not 'gadget'", "messages[1].tool_calls[0].type"),
        (call(index=0), "Unknown field 'index' in tool_calls[0]", "messages[1].tool_calls[0].index"),
        (call(function={"name": "f"}), "lacks 'arguments'", "messages[1].tool_calls[0].function.arguments"),
        (
            call(function={"name": "f", "arguments": {}}),
            "arguments must be a string of JSON, not an object",
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            call(function={"name": None, "arguments": ""}),
            "name must be a string, not null",
            "messages[1].tool_calls[0].function.name",
        ),
        ({**call(), "function_call": CALL["function"]}, "either tool_calls or a function_call", "messages[1].function_call"),
        ({"role": "tool", "content": "a"}, "tool_call_id is required", "messages[1].tool_call_id"),
        ({"role": "function", "content": "a"}, "name is required", "messages[1].name"),
        ({"role": "function", "content": [TEXT], "name": "f"}, "content must be a string or null", "messages[1].content"),
        ({"role": "assistant", "content": "a", "weight": 1}, "weight is for training files only", "messages[1].weight"),
    ],
)
def test_bad_messages(message: Any, words: str, param: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        check_messages([{"role": "user", "content": "a"}, message])
    assert words in str(caught.value)
    assert caught.value.number == 2
    assert caught.value.param("messages") == param


@pytest.mark.parametrize("value", [None, [], {}, "a"])
def test_messages_are_a_list(value: object) -> None:
    with pytest.raises(InvalidMessage, match="list of at least one message") as caught:
        check_messages(value)
    assert caught.value.param("messages") == "messages"


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_other_media_are_recognised_as_not_available(kind: str) -> None:
    with pytest.raises(InvalidMessage, match="are not available") as caught:
        check_messages([{"role": "user", "content": [TEXT, {"type": kind, kind: {"url": "https://example.com/a.png"}}]}])
    assert caught.value.not_available


def test_custom_tools_are_recognised_as_not_available() -> None:
    custom = {"id": "call_1", "type": "custom", "custom": {"name": "f", "input": "x"}}
    with pytest.raises(InvalidMessage, match="Custom tools are not available") as caught:
        check_messages([{"role": "assistant", "tool_calls": [CALL, custom]}])
    assert (caught.value.not_available, caught.value.field) == (True, "tool_calls[1].type")
    with pytest.raises(InvalidMessage, match="Custom tools are not available") as caught:
        check_tools([{"type": "custom", "custom": {"name": "f"}}])
    assert (caught.value.not_available, caught.value.param("tools")) == (True, "tools[0].type")


@pytest.mark.parametrize("weight", [0, 1, 0.0, 1.0, None])
def test_weights_that_train_or_do_not(weight: object) -> None:
    check_messages([{"role": "assistant", "content": "a", "weight": weight}], training=True)


@pytest.mark.parametrize("weight", [0.5, 2, -1, True, "1", [1]])
def test_other_weights_are_refused(weight: object) -> None:
    with pytest.raises(InvalidMessage, match="weight must be 0 or 1"):
        check_messages([{"role": "assistant", "content": "a", "weight": weight}], training=True)


def test_a_weight_stands_on_an_assistant_message() -> None:
    with pytest.raises(InvalidMessage, match="weight is for assistant messages only"):
        check_messages([{"role": "user", "content": "a", "weight": 0}], training=True)


def test_long_values_are_shown_short() -> None:
    with pytest.raises(InvalidMessage) as caught:
        check_messages([{"role": "assistant", "content": "a", "weight": "x" * 500}], training=True)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    "function",
    [
        {"name": "f"},
        {"name": "a-B_9", "description": None, "parameters": None, "strict": None},
        {"name": "f" * 64, "description": "d", "parameters": {"type": "object"}, "strict": True},
    ],
)
def test_good_tools(function: dict[str, Any]) -> None:
    tools = [{"type": "function", "function": function}]
    assert check_tools(tools) is tools
    assert check_functions([function]) == tools


@pytest.mark.parametrize(
    ("tool", "words", "param"),
    [
        ("f", "The entry must be an object, not a string", "tools[0]"),
        ({"type": "gadget", "gadget": {}}, "A tool's type must be 'function', not 'gadget'", "tools[0].type"),
        ({"type": "function"}, "The entry lacks 'function'", "tools[0].function"),
        ({"function": {"name": "f"}}, "The entry lacks 'type'", "tools[0].type"),
        ({"type": "function", "function": {"name": "f"}, "x": 1}, "Unknown field 'x' in the entry", "tools[0].x"),
        ({"type": "function", "function": {"name": "a b"}}, "1 to 64 letters", "tools[0].function.name"),
        ({"type": "function", "function": {"name": "f" * 65}}, "1 to 64 letters", "tools[0].function.name"),
        (
            {"type": "function", "function": {"name": "f", "parameters": []}},
            "JSON Schema object",
            "tools[0].function.parameters",
        ),
        (
            {"type": "function", "function": {"name": "f", "description": 1}},
            "description must be",
            "tools[0].function.description",
        ),
        ({"type": "function", "function": {"name": "f", "strict": "yes"}}, "strict must be", "tools[0].function.strict"),
    ],
)
def test_bad_tools(tool: Any, words: str, param: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        check_tools([tool])
    assert words in str(caught.value)
    assert caught.value.param("tools") == param


def test_tools_and_functions_are_lists() -> None:
    with pytest.raises(InvalidMessage, match="tools must be a list, not an object"):
        check_tools({})
    for value in ([], [{"name": "f"}] * 129, None):
        with pytest.raises(InvalidMessage, match="1 to 128"):
            check_functions(value)
    with pytest.raises(InvalidMessage) as caught:
        check_functions([{"name": "f"}, {"name": ""}])
    assert caught.value.param("functions") == "functions[1].name"


def test_function_calls_become_tool_calls_with_matching_ids() -> None:
    messages = check_messages(
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "1"},
            {"role": "function", "name": "other", "content": None},
        ]
    )
    user, assistant, answer, stray = modern(messages)
    assert user is messages[0]
    assert assistant["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert "function_call" not in assistant
    assert answer == {"role": "tool", "name": "f", "content": "1", "tool_call_id": assistant["tool_calls"][0]["id"]}
    assert stray["content"] == ""
    assert check_messages([user, assistant, answer, stray])


def test_text_of_content() -> None:
    assert text_of(None) is None
    assert text_of("a") == "a"
    assert text_of([TEXT, {"type": "refusal", "refusal": "b"}]) == "ab"


def test_checking_is_fast_enough_for_large_files() -> None:
    row = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]
    started_at = time.process_time()
    for _ in range(10_000):
        check_messages(row, training=True)
    assert time.process_time() - started_at < 3.0  # 100,000 rows a minute would leave 6 seconds for these
