"""Answers told token by token, so that each has a known text: tool calls, broken answers, several choices, both clients."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from tokenizers import Tokenizer

from scripted import MODEL, Script, scripted
from tiny import base_of, build
from tunesmith.domain.scope import Everywhere
from tunesmith.store import models

SAID: list[Any] = [{"role": "user", "content": "What is the weather?"}]
FUNCTION = {"name": "weather", "description": "Look outside.", "parameters": {"type": "object", "properties": {}}}
TOOLS: list[Any] = [{"type": "function", "function": FUNCTION}]
CALLS = (
    'Let me see.\n<tool_call>{"name": "weather", "arguments": {"city": "Ulm"}}</tool_call>\n'
    '<tool_call>{"name": "weather", "arguments": {"city": "Köln"}}</tool_call>'
)


@pytest.fixture(scope="module")
def script(served: Any) -> Script:
    return scripted(served)


@pytest.fixture(autouse=True)
def said(script: Script) -> Iterator[Script]:
    yield script
    script.texts, script.breaks_after = ["Fine."], None
    script.requests.clear()


def ask(client: openai.OpenAI, **wishes: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL, "messages": SAID, **wishes})


def calls(message: Any) -> list[tuple[str, Any]]:
    return [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]


#: As Llama 3's template has it: a call is the whole answer, one JSON object.
UNMARKED = (
    "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}"
    '{"name": "{{ call.function.name }}", "parameters": {{ call.function.arguments | tojson }}}'
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
EXPECTED = [("weather", {"city": "Ulm"}), ("weather", {"city": "Köln"})]


def test_tool_calls_come_back_as_such(client: openai.OpenAI, said: Script, conforms: Callable[..., None]) -> None:
    said.texts = [CALLS]
    answer = ask(client, tools=TOOLS)
    conforms(answer, "CreateChatCompletionResponse")
    choice = answer.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me see.")
    assert calls(choice.message) == EXPECTED
    assert len({call.id for call in choice.message.tool_calls}) == 2
    one = ask(client, tools=TOOLS, parallel_tool_calls=False).choices[0]
    assert calls(one.message) == EXPECTED[:1]
    said.texts = [CALLS.partition("\n")[2]]
    assert ask(client, tools=TOOLS).choices[0].message.content is None
    assert ask(client).choices[0].message.tool_calls is None, "nobody offered tools"


def test_the_answers_of_tools_are_taken_in_the_clients_own_form(client: openai.OpenAI, said: Script) -> None:
    said.texts = [CALLS]
    message = ask(client, tools=TOOLS).choices[0].message
    answers = [{"role": "tool", "tool_call_id": call.id, "content": "Sun."} for call in message.tool_calls]
    said.texts = ["Sunny."]
    for own in (message, message.to_dict(), message.model_dump()):
        answer = ask(client, tools=TOOLS, messages=[*SAID, own, *answers])
        assert answer.choices[0].message.content == "Sunny."
    assert len({tuple(request.prompt) for request in said.requests[1:]}) == 1


def test_tools_are_told_to_the_model_unless_none_shall_be_called(client: openai.OpenAI) -> None:
    plain = ask(client).usage.prompt_tokens
    assert ask(client, tools=TOOLS).usage.prompt_tokens > plain
    assert ask(client, tools=TOOLS, tool_choice="none").usage.prompt_tokens == plain
    assert ask(client, tools=[]).usage.prompt_tokens == plain


def test_tool_calls_are_streamed_by_index(client: openai.OpenAI, said: Script, conforms: Callable[..., None]) -> None:
    said.texts = [CALLS]
    told: dict[int, list[Any]] = {}
    reasons = []
    for chunk in ask(client, tools=TOOLS, stream=True):
        conforms(chunk, "CreateChatCompletionStreamResponse")
        for call in chunk.choices[0].delta.tool_calls or []:
            told.setdefault(call.index, []).append(call)
        reasons.append(chunk.choices[0].finish_reason)
    for parts, (name, arguments) in zip(told.values(), EXPECTED, strict=True):
        first, *others = parts
        assert (first.type, first.function.name, first.function.arguments) == ("function", name, "")
        assert first.id.startswith("call_")
        assert {(part.id, part.type, part.function.name) for part in others} == {(None, None, None)}
        assert len(others) > 1
        assert json.loads("".join(part.function.arguments for part in others)) == arguments
    assert reasons == [None] * (len(reasons) - 1) + ["tool_calls"]


def test_a_call_without_a_mark_is_a_call_where_the_template_has_none(
    served: Any, client: openai.OpenAI, said: Script, tmp_path: Path
) -> None:
    build(tmp_path, template=UNMARKED, n_context=2048)
    with served.composed.db.begin() as tx:
        models.add_base(tx, Everywhere("the test lays out a base"), base_of(tmp_path, "unmarked", n_context=2048))
    letters = Script(Tokenizer.from_file(str(tmp_path / "tokenizer.json")))
    letters.texts = ['{"name": "weather", "parameters": {"city": "Ulm"}}']
    served.composed.services.chat.inference = letters
    try:
        whole = ask(client, model="unmarked", tools=TOOLS).choices[0]
        chunks = list(ask(client, model="unmarked", tools=TOOLS, stream=True))
        other = [{"type": "function", "function": {**FUNCTION, "name": "other"}}]
        text = ask(client, model="unmarked", tools=other).choices[0]
    finally:
        served.composed.services.chat.inference = said
    assert (whole.finish_reason, whole.message.content, calls(whole.message)) == ("tool_calls", None, EXPECTED[:1])
    parts = [call.function for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert (parts[0].name, json.loads("".join(part.arguments for part in parts))) == EXPECTED[0]
    assert not any(chunk.choices[0].delta.content for chunk in chunks)
    assert (text.finish_reason, text.message.content) == ("stop", letters.texts[0]), "nobody offered that function"


def test_a_function_that_is_called_by_itself_ends_the_answer(client: openai.OpenAI, said: Script) -> None:
    said.texts = [CALLS]
    [choice] = ask(client, functions=[FUNCTION]).choices
    assert (choice.finish_reason, choice.message.content) == ("function_call", "Let me see.")
    assert (choice.message.function_call.name, json.loads(choice.message.function_call.arguments)) == EXPECTED[0]
    last = list(ask(client, functions=[FUNCTION], stream=True))[-1]
    assert last.choices[0].finish_reason == "function_call"


def test_every_choice_has_its_role_its_text_and_its_end(client: openai.OpenAI, said: Script) -> None:
    said.texts = ["One.", "Two, and longer.", "Three."]
    whole = ask(client, n=3)
    assert [choice.message.content for choice in whole.choices] == said.texts
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    chunks = list(ask(client, n=3, stream=True))
    assert [chunk.choices[0].delta.role for chunk in chunks[:3]] == ["assistant"] * 3
    assert sorted(chunk.choices[0].index for chunk in chunks if chunk.choices[0].finish_reason == "stop") == [0, 1, 2]
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_stands_in_a_last_chunk_without_choices(client: openai.OpenAI) -> None:
    *chunks, last = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert (last.choices, last.usage.to_dict()) == ([], ask(client).usage.to_dict())
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("stop", ["moon", ["moon"], ["x", "moon", "y", "z"]])
def test_a_stop_is_a_string_or_up_to_four(client: openai.OpenAI, said: Script, stop: Any) -> None:
    said.texts = ["The moon is full."]
    choice = ask(client, stop=stop).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("The ", "stop")


@pytest.mark.parametrize(
    ("wishes", "sampled"),
    [
        ({}, (1.0, 1.0, None)),
        ({"temperature": 0, "top_p": 0, "seed": -(2**63)}, (0.0, 0.0, -(2**63))),
        ({"temperature": 2, "top_p": 1, "seed": 2**63 - 1}, (2.0, 1.0, 2**63 - 1)),
        ({"temperature": None, "top_p": None, "seed": None, "n": None, "stop": None}, (1.0, 1.0, None)),
    ],
)
def test_how_to_sample_is_handed_on(client: openai.OpenAI, said: Script, wishes: Any, sampled: Any) -> None:
    ask(client, **wishes)
    request = said.requests[-1]
    assert (request.temperature, request.top_p, request.seed) == sampled


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_either_name_limits_the_answer(client: openai.OpenAI, said: Script, name: str) -> None:
    ask(client, **{name: 7})
    assert said.requests[-1].max_tokens == 7


def test_a_stream_that_breaks_tells_why_after_what_it_said(client: openai.OpenAI, http: httpx2.Client, said: Script) -> None:
    said.texts, said.breaks_after = ["One two three four five six."], 3
    stream, heard = ask(client, stream=True), []
    with pytest.raises(openai.APIError, match="stopped while it answered"):
        heard += [chunk.choices[0].delta.content for chunk in stream]
    raw = http.post("/v1/chat/completions", json={"model": MODEL, "messages": SAID, "stream": True})
    *_, broken, done, rest = raw.text.split("\n\n")
    assert (raw.status_code, done, rest) == (200, "data: [DONE]", "")
    error = json.loads(broken.removeprefix("data: "))
    assert list(error) == ["error"]
    assert error["error"]["type"] == "server_error"
    assert set(error["error"]) == {"message", "type", "param", "code"}
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert caught.value.status_code == 503


def test_a_stream_that_cannot_begin_is_an_http_error(client: openai.OpenAI, said: Script) -> None:
    said.breaks_after = 0
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, stream=True)
    assert caught.value.status_code == 503


def test_a_stream_carries_the_headers_of_every_answer(http: httpx2.Client) -> None:
    headers = http.post("/v1/chat/completions", json={"model": MODEL, "messages": SAID, "stream": True}).headers
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["x-request-id"].startswith("req_")
    assert int(headers["openai-processing-ms"]) >= 0


@pytest.fixture
async def walker(served: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client:
        yield client


@pytest.mark.anyio
async def test_the_async_client_gets_the_same(walker: openai.AsyncOpenAI, said: Script) -> None:
    said.texts = ["One two three."]
    chat: Any = walker.chat.completions
    whole = await chat.create(model=MODEL, messages=SAID)
    assert whole.choices[0].message.content == "One two three."
    stream = await chat.create(model=MODEL, messages=SAID, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "One two three."
    assert chunks[-1].usage == whole.usage
    async with chat.stream(model=MODEL, messages=SAID) as events:
        final = await events.get_final_completion()
    assert final.choices[0].message.content == "One two three."
    with pytest.raises(openai.NotFoundError) as caught:
        await chat.create(model="nobody", messages=SAID)
    assert caught.value.code == "model_not_found"
    said.breaks_after = 2
    with pytest.raises(openai.APIError, match="stopped while it answered"):
        _ = [chunk async for chunk in await chat.create(model=MODEL, messages=SAID, stream=True)]
