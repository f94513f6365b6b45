"""Tool calls that are bound: chosen, strict, or beside a form of answers; by a real sampler, of random bases too."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import openai
import pydantic
import pytest

from tiny import base_of, build
from tunesmith.domain.scope import Everywhere
from tunesmith.store import models

SAID: list[Any] = [{"role": "user", "content": "Where is parcel 7? Answer in JSON."}]
TRACK: dict[str, Any] = {
    "type": "object",
    "properties": {"parcel": {"type": "integer", "minimum": 0, "maximum": 99}, "fast": {"type": "boolean"}},
    "required": ["parcel", "fast"],
    "additionalProperties": False,
}
REFUND: dict[str, Any] = {
    "type": "object",
    "properties": {"why": {"$ref": "#/$defs/why"}},
    "required": ["why"],
    "additionalProperties": False,
    "$defs": {"why": {"type": "string", "enum": ["late", "lost"]}},
}
SCHEMAS = {"track": TRACK, "refund": REFUND}
TICKET: dict[str, Any] = {
    "type": "object", "properties": {"urgent": {"type": "boolean"}}, "required": ["urgent"], "additionalProperties": False,
}  # fmt: skip

#: As Qwen's template has it: marks and call on lines of their own.
LINES = (
    "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}{{ '\\n' }}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BASES = ["tunesmith-nano", "letters", "marks"]


def tool(name: str, **more: Any) -> Any:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMAS[name], **more}}


TOOLS = [tool("track"), tool("refund")]
STRICT = [tool("track", strict=True), tool("refund", strict=True)]


@pytest.fixture(scope="module")
def client(open_house: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """A server with a base whose marks of a call are letters, and one that has a special token for each."""
    with open_house(tmp_path_factory.mktemp("house")) as served:
        for name, tokens in (("letters", ()), ("marks", ("<tool_call>", "</tool_call>"))):
            folder = tmp_path_factory.mktemp(name)
            build(folder, template=LINES, n_context=2048, tokens=tokens)
            with served.composed.db.begin() as tx:
                models.add_base(tx, Everywhere("the test lays out bases"), base_of(folder, name, n_context=2048))
        with openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0, timeout=120) as client:
            yield client


def ask(client: openai.OpenAI, model: str = "tunesmith-nano", **wishes: Any) -> Any:
    wishes = {"messages": SAID, "max_tokens": 150, "temperature": 1.5, "seed": 1, "tools": TOOLS, **wishes}
    return client.chat.completions.create(model=model, **wishes)


def named(name: str) -> Any:
    return {"type": "function", "function": {"name": name}}


def check(call: Any) -> str:
    """Assert that a call keeps to its function's schema and return the function's name."""
    jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
    return call.function.name


def whole(choice: Any) -> list[Any]:
    """Return the calls of a choice, without the one that its length cut off."""
    calls = choice.message.tool_calls or []
    return calls[:-1] if choice.finish_reason == "length" else calls


@pytest.mark.parametrize("base", BASES)
def test_a_call_that_is_required_is_made(client: openai.OpenAI, conforms: Callable[..., None], base: str) -> None:
    answer = ask(client, base, tool_choice="required", n=4, parallel_tool_calls=False)
    conforms(answer, "CreateChatCompletionResponse")
    for choice in answer.choices:
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        [call] = choice.message.tool_calls
        check(call)


@pytest.mark.parametrize("base", ["letters", "marks"])
def test_several_may_be_made_at_once(client: openai.OpenAI, base: str) -> None:
    # never the token that ends a turn, as long as there is another
    wishes: Any = {"tool_choice": "required", "n": 4, "max_tokens": 300, "logit_bias": {"256": -100}}
    answers = ask(client, base, **wishes).choices
    made = [[check(call) for call in whole(choice)] for choice in answers]
    assert min(map(len, made)) > 1
    assert {name for names in made for name in names} <= {"track", "refund"}
    assert {choice.message.content for choice in answers if choice.finish_reason != "length"} <= {None}


@pytest.mark.parametrize("base", BASES)
def test_a_function_that_is_named_is_called_once_and_ends_with_stop(client: openai.OpenAI, base: str) -> None:
    for choice in ask(client, base, tool_choice=named("refund"), n=4).choices:
        assert (choice.finish_reason, [check(call) for call in choice.message.tool_calls]) == ("stop", ["refund"])


@pytest.mark.parametrize("base", BASES)
def test_only_what_is_allowed_is_called(client: openai.OpenAI, base: str) -> None:
    def allowed(mode: str) -> Any:
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named("track")]}}

    for choice in ask(client, base, tool_choice=allowed("required"), n=4).choices:
        assert {check(call) for call in whole(choice)} <= {"track"}
        assert choice.message.tool_calls
    # to a model that may speak too they are told, and of a call nothing but its function is bound
    prompt = ask(client, base, max_tokens=1).usage.prompt_tokens
    assert ask(client, base, max_tokens=1, tool_choice=allowed("auto")).usage.prompt_tokens == prompt
    for choice in ask(client, base, tool_choice=allowed("auto"), n=4).choices:
        assert {call.function.name for call in choice.message.tool_calls or []} <= {"track"}


@pytest.mark.parametrize("base", BASES)
def test_an_answer_of_a_form_or_calls(client: openai.OpenAI, base: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "ticket", "schema": TICKET}}
    kinds: set[str] = set()
    for seed in range(6):
        for choice in ask(client, base, response_format=form, n=4, seed=seed, temperature=2).choices:
            kinds.add("call" if choice.message.tool_calls else "answer")
            assert {call.function.name for call in whole(choice)} <= SCHEMAS.keys()
            if not choice.message.tool_calls and choice.finish_reason == "stop":
                jsonschema.validate(json.loads(choice.message.content), TICKET)
            else:
                assert choice.message.content is None or choice.finish_reason == "length"
    assert kinds == {"call", "answer"} if base != "tunesmith-nano" else kinds
    told = ask(client, base, response_format={"type": "json_object"}, tool_choice="none", max_tokens=5)
    assert told.choices[0].message.content.startswith("{")
    with pytest.raises(openai.BadRequestError, match="must contain the word 'json'"):
        ask(client, base, response_format={"type": "json_object"}, messages=[{"role": "user", "content": "hello"}])


@pytest.mark.parametrize("base", BASES)
def test_a_stream_is_the_same_answer(client: openai.OpenAI, conforms: Callable[..., None], base: str) -> None:
    wishes: Any = {"tool_choice": "required", "parallel_tool_calls": False}
    [expected] = ask(client, base, **wishes).choices[0].message.tool_calls
    chunks = list(ask(client, base, stream=True, **wishes))
    parts = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or []]
    for chunk in chunks:
        conforms(chunk, "CreateChatCompletionStreamResponse")
    assert [part.index for part in parts] == [0] * len(parts)
    assert (parts[0].function.name, parts[0].function.arguments) == (expected.function.name, "")
    assert "".join(part.function.arguments for part in parts) == expected.function.arguments
    assert len(parts) > 2
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


class track(pydantic.BaseModel):  # noqa: N801 - the function's name
    """Look where a parcel is."""

    parcel: int = pydantic.Field(ge=0, le=99)
    fast: bool


class Ticket(pydantic.BaseModel):
    urgent: bool


@pytest.mark.parametrize("base", BASES)
def test_the_clients_own_helpers_parse_calls(client: openai.OpenAI, base: str) -> None:
    strict = openai.pydantic_function_tool(track)
    wishes: Any = {
        "model": base, "messages": SAID, "tools": [strict], "tool_choice": "required", "parallel_tool_calls": False,
        "max_tokens": 150, "temperature": 1.5, "seed": 3,
    }  # fmt: skip
    answer = client.chat.completions.parse(**wishes)
    [call] = answer.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, track)
    assert answer.choices[0].message.refusal is None
    answered = {"role": "tool", "tool_call_id": call.id, "content": "Ulm"}
    for own in (answer.choices[0].message, answer.choices[0].message.model_dump()):
        assert client.chat.completions.create(model=base, messages=[*SAID, own, answered], max_tokens=1).choices
    both = client.chat.completions.parse(**wishes, response_format=Ticket)
    assert both.choices[0].message.parsed is None
    with client.chat.completions.stream(**wishes) as events:
        kinds = {event.type for event in events}
        final = events.get_final_completion()
    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    [streamed] = final.choices[0].message.tool_calls or []
    assert streamed.function.parsed_arguments == call.function.parsed_arguments
    spoken = client.chat.completions.parse(**{**wishes, "tool_choice": "none"}, response_format=Ticket)
    assert isinstance(spoken.choices[0].message.parsed, Ticket)
    assert client.beta.chat.completions.parse(**wishes).choices[0].message.tool_calls


@pytest.mark.parametrize(
    ("wishes", "param", "told"),
    [
        ({"tool_choice": "sometimes"}, "tool_choice", "must be"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function.name", "required"),
        ({"tool_choice": named("nobody")}, "tool_choice.function.name", "track, refund"),
        ({"tool_choice": {**named("track"), "x": 1}}, "tool_choice.x", "Unknown"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools.mode", "required"),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
            "tool_choice.allowed_tools.tools", "at least one",
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [named("x")]},
                }
            },
            "tool_choice.allowed_tools.tools[0].function.name", "'x'",
        ),
        ({"tool_choice": "required", "tools": openai.omit}, "tool_choice", "'tools'"),
        ({"tools": [*TOOLS, {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"not": {}}}}]},
         "tools[2].function.parameters", "leave 'strict' out"),
        (
            {"tools": [{**named("f"), "function": {"name": "f", "parameters": {"not": {}}}}], "tool_choice": "required"},
            "tools[0].function.parameters", "\"auto\"",
        ),
    ],
)  # fmt: skip
def test_a_choice_that_cannot_be_made_is_refused(client: openai.OpenAI, wishes: Any, param: str, told: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **wishes)
    assert refused.value.param == param
    assert told in refused.value.message


def test_a_schema_that_nothing_can_be_written_by_is_the_tools(client: openai.OpenAI) -> None:
    endless = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    tools = [{"type": "function", "function": {"name": "f", "parameters": endless}}]
    with pytest.raises(openai.BadRequestError, match="cannot keep to the schema") as refused:
        ask(client, tools=tools, tool_choice="required")
    assert refused.value.param == "tools"


FUNCTIONS = [tool["function"] for tool in TOOLS]
RETIRED: Any = {"functions": FUNCTIONS, "tools": openai.omit}


@pytest.mark.parametrize("base", BASES)
def test_functions_are_tools_by_their_old_name(client: openai.OpenAI, conforms: Callable[..., None], base: str) -> None:
    wishes = {**RETIRED, "function_call": {"name": "refund"}}
    answer = ask(client, base, **wishes)
    conforms(answer, "CreateChatCompletionResponse")
    [choice] = answer.choices
    call = choice.message.function_call
    assert (choice.finish_reason, choice.message.content, choice.message.tool_calls) == ("stop", None, None)
    jsonschema.validate(json.loads(call.arguments), REFUND)
    chunks = [chunk.choices[0] for chunk in ask(client, base, stream=True, **wishes)]
    parts = [chunk.delta.function_call for chunk in chunks if chunk.delta.function_call]
    assert (parts[0].name, parts[0].arguments, {part.name for part in parts[1:]}) == ("refund", "", {None})
    assert "".join(part.arguments for part in parts) == call.arguments
    told = {"role": "function", "name": "refund", "content": "done"}
    assert ask(client, base, messages=[*SAID, choice.message.to_dict(), told], max_tokens=1, **RETIRED).choices
    assert ask(client, base, **RETIRED, function_call="none", max_tokens=5).choices[0].message.function_call is None


@pytest.mark.parametrize(
    ("wishes", "param"),
    [
        ({"functions": FUNCTIONS}, "tools"),
        ({**RETIRED, "tool_choice": "auto"}, "tool_choice"),
        ({**RETIRED, "functions": []}, "functions"),
        ({**RETIRED, "functions": [{"name": "a b"}]}, "functions[0].name"),
        ({**RETIRED, "function_call": {"name": "nobody"}}, "function_call.name"),
        ({**RETIRED, "function_call": {"name": "track", "x": 1}}, "function_call.x"),
        ({**RETIRED, "function_call": "required"}, "function_call"),
        ({"function_call": {"name": "track"}}, "function_call"),
    ],
)
def test_functions_that_cannot_be_called_are_refused(client: openai.OpenAI, wishes: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **wishes)
    assert refused.value.param == param
