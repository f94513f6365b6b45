"""What no chat completion is asked for: fields of other releases, wrong values by their path, text that is none."""

import json
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

MODEL = "tunesmith-nano"
SAID: list[Any] = [{"role": "user", "content": "Hello there"}]
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}


def ask(client: openai.OpenAI, **wishes: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL, "messages": SAID, "max_tokens": 1, **wishes})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("modalities", ["text", "audio"]),
        ("web_search_options", {}),
        ("verbosity", "low"),
        ("moderation", {}),
    ],
)
def test_what_another_release_brings_is_named(client: openai.OpenAI, field: str, value: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, extra_body={field: value})
    assert (refused.value.code, refused.value.param) == ("not_available", field)
    assert f"'{field}' " in refused.value.message
    assert "leave it out" in refused.value.message


@pytest.mark.parametrize(
    ("wishes", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 5}, "max_completion_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"prediction": {"type": "content"}}, "prediction.content"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {"five": 1}}, "logit_bias"),
        ({"logit_bias": {"-5": 1}}, "logit_bias"),
        ({"logit_bias": {"999999": 1, "5": 1}}, "logit_bias"),
        ({"frequency_penalty": 2.5}, "frequency_penalty"),
        ({"presence_penalty": -2.5}, "presence_penalty"),
        ({"stop": ["a", 1]}, "stop[1]"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages[0].role"),
        ({"extra_body": {"colour": "red"}}, "colour"),
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools[0].function.name"),
    ],
)
def test_what_is_wrong_is_named(client: openai.OpenAI, wishes: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **wishes)
    assert refused.value.param == param


def test_a_base_that_reads_text_names_the_image_that_it_cannot_see(client: openai.OpenAI) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    said = [*SAID, {"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]}]
    with pytest.raises(openai.BadRequestError, match="reads text alone") as refused:
        ask(client, messages=said)
    assert (refused.value.code, refused.value.param) == ("not_available", "messages[1].content[1]")
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, messages=[{"role": "system", "content": [part]}])
    assert (refused.value.code, refused.value.param) == ("not_available", "messages[0].content[0]")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"image_url": "https://pictures.test/a.png"}, "image_url"),
        ({"image_url": {}}, "image_url.url"),
        ({"image_url": {"url": 3}}, "image_url.url"),
        ({"image_url": {"url": "x", "detail": "most"}}, "image_url.detail"),
        ({"image_url": {"url": "x", "size": 3}}, "image_url.size"),
        ({"size": 3}, "size"),
    ],
)
def test_an_image_is_written_as_openai_has_it(client: openai.OpenAI, change: Any, param: str) -> None:
    part = {"type": "image_url", "image_url": {"url": "x"}, **change}
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, messages=[{"role": "user", "content": [part]}])
    assert refused.value.param == f"messages[0].content[0].{param}"


@pytest.mark.parametrize(
    ("wishes", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        (
            {
                "messages": [
                    *SAID,
                    {
                        "role": "assistant",
                        "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "f", "input": ""}}],
                    },
                ]
            },
            "messages[1].tool_calls[0].type",
        ),
        ({"tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "tool_choice.type"),
    ],
)
def test_tools_of_another_release_are_named(client: openai.OpenAI, wishes: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **wishes)
    assert (refused.value.code, refused.value.param) == ("not_available", param)


@pytest.mark.parametrize(
    ("stop", "told"),
    [
        (5, "'stop' must be a string or an array, not an integer."),
        ({"a": 1}, "'stop' must be a string or an array, not an object."),
        (["a", 1], "'stop[1]' must be a string, not an integer."),
        (["a", ""], "'stop' must be up to 4 sequences, none of them empty (got ['a', ''])."),
    ],
)
def test_a_value_of_several_types_is_told_all_of_them(client: openai.OpenAI, stop: Any, told: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, stop=stop)
    assert refused.value.body["message"] == told  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": "\ud800"}, "model"),
        ({"model": "nul\x00"}, "model"),
        ({"messages": [*SAID, {"role": "user", "content": "half \udc00"}]}, "messages[1]"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "\ud800"}]}]}, "messages[0]"),
        ({"tools": [{"type": "function", "function": {**FUNCTION, "description": "\ud800"}}]}, "tools[0]"),
        ({"stop": "\ud800"}, "stop"),
        ({"stop": ["a", "\ud800"]}, "stop[1]"),
    ],
)
def test_text_that_is_no_unicode_is_refused_by_its_place(http: httpx2.Client, change: dict[str, Any], param: str) -> None:
    body = json.dumps({"model": MODEL, "messages": SAID, "max_tokens": 1, **change})
    answer = http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


NAMES = st.sampled_from(
    ["role", "content", "name", "type", "text", "tool_calls", "tool_call_id", "function", "function_call", "arguments", "id",
     "weight", "refusal", "parameters", "audio"]
)  # fmt: skip
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["user", "assistant", "tool", "function", "text", "custom", "\ud800"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)  # fmt: skip
WISHES = st.sampled_from(
    ["messages", "tools", "n", "max_tokens", "temperature", "top_p", "stop", "seed", "stream", "stream_options",
     "logit_bias", "tool_choice", "response_format", "metadata", "parallel_tool_calls"]
)  # fmt: skip


@settings(max_examples=50)
@given(wishes=st.dictionaries(WISHES, ODD | st.lists(ODD, max_size=3), max_size=4))
def test_no_body_makes_a_chat_fail_on_the_servers_side(http: httpx2.Client, wishes: dict[str, Any]) -> None:
    body = json.dumps({"messages": SAID, **wishes, "model": "nobody"})
    answer = http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in {400, 404}
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
