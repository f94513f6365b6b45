"""Chat through models upstream: what is sent there, and what comes back of it."""

from collections.abc import Callable
from typing import Any

import openai
import pytest

from far import N_CACHED, N_COMPLETION, N_PROMPT, N_REASONING, USAGE, FarServer, said, says, sends, status, streams
from far.judging import Gallery
from far.passing import FORM, SAID, SECRET, ask

TOOL: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def test_an_answer_conforms_and_counts_as_the_other_server_does(
    chat: openai.OpenAI, other: FarServer, conforms: Callable[..., None]
) -> None:
    answer = ask(chat)
    conforms(answer, "CreateChatCompletionResponse")
    assert (answer.model, answer.choices[0].message.content, answer.choices[0].finish_reason) == ("my-m", "yes", "stop")
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (N_PROMPT, N_COMPLETION, 18)
    assert usage.prompt_tokens_details.cached_tokens == N_CACHED
    assert usage.completion_tokens_details.reasoning_tokens == N_REASONING
    assert other.asked[0]["authorization"] == f"Bearer {SECRET}"


def test_a_stream_says_the_same_as_the_whole(chat: openai.OpenAI, other: FarServer, conforms: Callable[..., None]) -> None:
    text = "One, two \u2028 and\x85three "
    other.acts.extend([says(text)] * 2)
    whole = ask(chat).choices[0].message.content
    chunks = list(ask(chat, stream=True, stream_options={"include_usage": True}))
    for chunk in chunks:
        conforms(chunk, "CreateChatCompletionStreamResponse")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole == text
    assert (chunks[-2].choices[0].finish_reason, chunks[-1].usage.completion_tokens) == ("stop", N_COMPLETION)
    assert {chunk.model for chunk in chunks} == {"my-m"}
    assert len({chunk.id for chunk in chunks}) == 1


def test_only_what_is_set_is_sent(chat: openai.OpenAI, other: FarServer) -> None:
    ask(chat, user="me", n=1)
    told = {"model": "m", "messages": SAID, "stream": True, "stream_options": {"include_usage": True}}
    assert other.asked[-1]["body"] == told
    wishes = {"temperature": 1.0, "top_p": 0.5, "stop": ["x"], "seed": 7, "tools": [TOOL], "parallel_tool_calls": False}
    ask(chat, **wishes, max_tokens=5)
    assert other.asked[-1]["body"] == {**told, **wishes, "max_completion_tokens": 5}
    wishes = {
        "presence_penalty": 0.5,
        "frequency_penalty": -1.0,
        "logit_bias": {"5": 2.0},
        "logprobs": True,
        "top_logprobs": 2,
    }
    ask(chat, **wishes)
    assert other.asked[-1]["body"] == {**told, **wishes}
    ask(chat, "my-thinks", reasoning_effort="low")
    assert other.asked[-1]["body"] == {**told, "model": "thinks", "reasoning_effort": "low"}
    ask(chat, "my-older", max_completion_tokens=5)
    assert other.asked[-1]["body"]["max_tokens"] == 5
    other.acts.append(says('{"a": 1}'))
    ask(chat, response_format=FORM)
    assert other.asked[-1]["body"]["response_format"] == FORM
    other.acts.append(says("{}"))
    ask(chat, messages=[{"role": "user", "content": "Say json."}], response_format={"type": "json_object"})
    assert other.asked[-1]["body"]["response_format"] == {"type": "json_object"}
    part = {"type": "text", "text": "Hello", "prompt_cache_breakpoint": {"mode": "explicit"}}
    ask(chat, messages=[{"role": "user", "content": [part]}])
    assert other.asked[-1]["body"]["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]


def test_several_choices_are_kept_apart(chat: openai.OpenAI, other: FarServer) -> None:
    first, second = said("a b c", index=0), said("d e", index=1, end="length")
    mixed = [chunk for pair in zip(first, [*second, {"choices": []}], strict=False) for chunk in pair]
    other.acts.append(streams(*mixed, *first[len(second) + 1 :]))
    answer = ask(chat, n=2)
    assert [choice.message.content for choice in answer.choices] == ["a b c", "d e"]
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "length"]
    assert other.asked[-1]["body"]["n"] == 2


def test_a_choice_of_tools_is_sent_as_every_server_knows_it(chat: openai.OpenAI, other: FarServer) -> None:
    tools = [TOOL, {"type": "function", "function": {"name": "see"}}]
    named: Any = {"type": "function", "function": {"name": "see"}}
    for choice in ("none", "required", named):
        ask(chat, tools=tools, tool_choice=choice)
        assert (other.asked[-1]["body"]["tools"], other.asked[-1]["body"]["tool_choice"]) == (tools, choice)
    ask(chat, tools=tools, tool_choice="auto")
    assert "tool_choice" not in other.asked[-1]["body"]
    allowed: Any = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    ask(chat, tools=tools, tool_choice=allowed)
    assert (other.asked[-1]["body"]["tools"], other.asked[-1]["body"]["tool_choice"]) == (tools[1:], "required")


def call(number: int, **function: str) -> dict[str, Any]:
    name = {"id": f"call_{number}", "type": "function"} if "name" in function else {}
    return {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": number, **name, "function": function}]}}]}


def test_tool_calls_are_told_while_they_are_written(chat: openai.OpenAI, other: FarServer) -> None:
    parts = [call(1, name="look", arguments=""), call(1, arguments='{"a"'), call(1, arguments=": 1}")]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    other.acts.extend([streams(*parts, call(2, name="look", arguments="{}"), end)] * 3)
    choice = ask(chat, tools=[TOOL]).choices[0]
    made = [(made.id, made.function.name, made.function.arguments) for made in choice.message.tool_calls]
    assert made == [("call_1", "look", '{"a": 1}'), ("call_2", "look", "{}")]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    with chat.chat.completions.stream(model="my-m", messages=SAID, tools=[TOOL]) as stream:
        final: Any = stream.get_final_completion().choices[0]
    assert [(each.id, each.function.name, each.function.arguments) for each in final.message.tool_calls] == made
    chunks = [chunk.choices[0].delta.tool_calls for chunk in ask(chat, tools=[TOOL], stream=True)]
    told = [(part.index, part.id, part.function.arguments) for parts in chunks for part in parts or []]
    assert told == [(0, "call_1", ""), (0, None, '{"a"'), (0, None, ": 1}"), (1, "call_2", "{}")]


def test_log_probabilities_are_passed_on(chat: openai.OpenAI, other: FarServer, conforms: Callable[..., None]) -> None:
    top = [{"token": "yes", "logprob": -0.5, "bytes": [121, 101, 115]}, {"token": "no", "logprob": -1.5, "bytes": None}]
    token = {**top[0], "top_logprobs": top}
    scored = {"choices": [{"index": 0, "delta": {"content": "yes"}, "logprobs": {"content": [token]}}]}
    other.acts.extend([streams(scored, *said(""))] * 2)
    wishes: Any = {"logprobs": True, "top_logprobs": 2}
    answer = ask(chat, **wishes)
    conforms(answer, "CreateChatCompletionResponse")
    (told,) = answer.choices[0].logprobs.content
    assert (told.token, told.bytes, told.logprob) == ("yes", [121, 101, 115], -0.5)
    assert [(each.token, each.bytes, each.logprob) for each in told.top_logprobs] == [
        ("yes", [121, 101, 115], -0.5),
        ("no", [110, 111], -1.5),
    ]
    chunks = list(ask(chat, stream=True, **wishes))
    assert [each.token for chunk in chunks for each in getattr(chunk.choices[0].logprobs, "content", None) or []] == ["yes"]


def test_thinking_and_refusals_are_told_apart(chat: openai.OpenAI, other: FarServer) -> None:
    for name in ("reasoning_content", "reasoning"):
        thought = [{"choices": [{"index": 0, "delta": {name: word}}]} for word in ("I ", "think.")]
        other.acts.extend([streams(*thought, *said("yes"))] * 2)
        message = ask(chat).choices[0].message
        assert (message.content, message.reasoning_content) == ("yes", "I think.")
        deltas = [chunk.choices[0].delta.to_dict() for chunk in ask(chat, stream=True)]
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "I think."
    other.acts.append(streams({"choices": [{"index": 0, "delta": {"refusal": "I will not."}}]}, *said("")))
    message = ask(chat).choices[0].message
    assert (message.content, message.refusal) == (None, "I will not.")


def test_a_server_that_does_not_stream_is_understood(chat: openai.OpenAI, other: FarServer) -> None:
    message = {"role": "assistant", "content": "whole", "tool_calls": None}
    other.acts.append(sends({"choices": [{"index": 0, "message": message, "finish_reason": "eos"}], "usage": USAGE}))
    answer = ask(chat)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("whole", "stop")
    assert answer.usage.prompt_tokens == N_PROMPT


def test_one_that_knows_no_stream_options_is_asked_without(chat: openai.OpenAI, other: FarServer) -> None:
    other.acts.append(status(422, "Extra inputs are not permitted: stream_options"))
    assert ask(chat).choices[0].message.content == "yes"
    assert [("stream_options" in asked["body"]) for asked in other.asked] == [True, False]


def test_responses_are_answered_by_it_too(chat: openai.OpenAI, other: FarServer) -> None:
    other.acts.append(says("Hello there"))
    answer = chat.responses.create(model="my-m", input="Hello", instructions="Be kind.", max_output_tokens=16)
    assert (answer.model, answer.status, answer.output_text) == ("my-m", "completed", "Hello there")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (N_PROMPT, N_COMPLETION)
    body = other.asked[-1]["body"]
    assert [message["content"] for message in body["messages"]] == ["Be kind.", "Hello"]
    assert body["max_completion_tokens"] == 16
    call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": '{"a": 1}'}}
    parts = [{"tool_calls": [call]}, {"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}]
    chunks = [{"choices": [{"index": 0, "delta": part, "finish_reason": None}]} for part in parts]
    other.acts.append(streams(*chunks, {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}))
    tools: Any = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}]
    asked: Any = {"model": "my-m", "input": "And now?", "previous_response_id": answer.id, "tools": tools}
    events = list(chat.responses.create(**asked, stream=True))
    (item,) = events[-1].response.output
    assert (events[-1].type, item.type, item.name, item.arguments) == (
        "response.completed", "function_call", "look", '{"a": 1}',
    )  # fmt: skip
    said_there = [message["content"] for message in other.asked[-1]["body"]["messages"]]
    assert said_there == ["Hello", "Hello there", "And now?"]
    other.acts.append(status(400, "too long", param="messages"))
    with pytest.raises(openai.BadRequestError, match="too long"):
        chat.responses.create(model="my-m", input="Hello")


def test_pictures_are_fetched_here(chat: openai.OpenAI, other: FarServer, gallery: Gallery) -> None:
    def look(model: str, url: str) -> str | None:
        content: Any = [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]
        answer = chat.chat.completions.create(model=model, messages=[{"role": "user", "content": content}])
        return answer.choices[0].message.content

    assert look("my-sees", f"http://{gallery.host}/red.png") == "It is red."
    sent = other.asked[-1]["body"]["messages"][0]["content"][0]["image_url"]
    assert sent["detail"] == "low"
    assert sent["url"].startswith("data:image/png;base64,")
    with pytest.raises(openai.BadRequestError, match="not on the public internet"):
        look("my-sees", "http://127.0.0.1/red.png")
    with pytest.raises(openai.BadRequestError, match="was found not to know images"):
        look("my-m", f"http://{gallery.host}/red.png")
