"""Function tools of the Responses API: calls and their events, outputs, choices, and what the client makes of them."""

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from scripted import MODEL, Script, scripted

FUNCTION: Any = {
    "type": "function",
    "name": "look",
    "description": "Look outside.",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    "strict": False,
}
OTHER: Any = {**FUNCTION, "name": "listen"}
TWO = (
    'Let me see.\n<tool_call>{"name": "look", "arguments": {"at": "sky"}}</tool_call>\n'
    '<tool_call>{"name": "listen", "arguments": {"at": "wind"}}</tool_call>'
)
CALL_EVENTS = [
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
]


@pytest.fixture(scope="module")
def script(served: Any) -> Script:
    return scripted(served)


@pytest.fixture(autouse=True)
def said(script: Script) -> Script:
    script.clear()
    return script


def ask(client: openai.OpenAI, said: Any = "What is new?", **wishes: Any) -> Any:
    return client.responses.create(**{"model": MODEL, "input": said, "tools": [FUNCTION, OTHER], **wishes})


def test_calls_are_items_of_the_output(client: openai.OpenAI, said: Script, conforms: Callable[..., None]) -> None:
    said.texts = [TWO]
    answer = ask(client, user="u")
    conforms(answer, "Response")
    message, look, listen = answer.output
    assert (message.type, answer.output_text, answer.status) == ("message", "Let me see.", "completed")
    assert [(call.type, call.name, json.loads(call.arguments)) for call in (look, listen)] == [
        ("function_call", "look", {"at": "sky"}),
        ("function_call", "listen", {"at": "wind"}),
    ]
    assert look.id.startswith("fc_")
    assert look.call_id.startswith("call_")
    assert {tool["name"]: tool["strict"] for tool in answer.to_dict()["tools"]} == {"look": False, "listen": False}
    assert ask(client, parallel_tool_calls=False).output[1:][0].name == "look"
    assert len(ask(client, parallel_tool_calls=False).output) == 2


def test_calls_are_told_by_events_in_order(client: openai.OpenAI, said: Script, conforms: Callable[..., None]) -> None:
    said.texts = [TWO]
    events = list(ask(client, stream=True))
    of_calls = [event for event in events if getattr(event, "output_index", 0) > 0]
    kinds = [event.type for event in of_calls]
    once = [kind for place, kind in enumerate(kinds) if not place or kinds[place - 1] != kind]
    assert once == CALL_EVENTS * 2
    names = {"delta": "ResponseFunctionCallArgumentsDeltaEvent", "done": "ResponseFunctionCallArgumentsDoneEvent"}
    for event in of_calls:
        if "arguments" in event.type:
            conforms(event, names[event.type.rsplit(".", 1)[1]])
    last = events[-1].response
    assert [event.output_index for event in of_calls] == sorted(event.output_index for event in of_calls)
    for index in (1, 2):
        mine = [event for event in of_calls if event.output_index == index]
        arguments = "".join(event.delta for event in mine if event.type == CALL_EVENTS[1])
        assert arguments == last.output[index].arguments == mine[-2].arguments == mine[-1].item.arguments
        assert (mine[0].item.arguments, mine[0].item.status, mine[-1].item.status) == ("", "in_progress", "completed")
        assert {event.item_id for event in mine[1:-1]} == {last.output[index].id} == {mine[0].item.id}
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"


def test_text_after_a_call_is_a_message_of_its_own(client: openai.OpenAI, said: Script) -> None:
    said.texts = ['<tool_call>{"name": "look", "arguments": {"at": "sky"}}</tool_call>\nDone.']
    answer = ask(client)
    assert [item.type for item in answer.output] == ["function_call", "message"]
    assert answer.output_text == "Done."


def test_outputs_go_back_by_items_or_by_the_chain(client: openai.OpenAI, said: Script) -> None:
    said.texts = [TWO]
    first = ask(client)
    calls = [item for item in first.output if item.type == "function_call"]
    outputs: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "Blue."} for call in calls]
    outputs[1]["output"] = [{"type": "input_text", "text": "Blue."}]
    question = {"role": "user", "content": "What is new?"}
    said.texts = ["All blue."]
    for conversation in (
        [question, *first.output, *outputs],
        [question, *(item.to_dict() for item in first.output), *outputs],
        [question, *(item.model_dump() for item in first.output), *outputs],
    ):
        assert ask(client, conversation).output_text == "All blue."
    assert ask(client, outputs, previous_response_id=first.id).output_text == "All blue."
    assert len({tuple(request.prompt) for request in said.requests[1:]}) == 1
    assert "Let me see." in said.prompt()


@pytest.mark.parametrize("kept", [True, False])
def test_calls_and_outputs_must_fit_together(client: openai.OpenAI, said: Script, kept: bool) -> None:
    said.texts = [TWO]
    first = ask(client)
    look, listen = first.output[1:]
    output = {"type": "function_call_output", "call_id": look.call_id, "output": "Blue."}
    rest: Any = {"previous_response_id": first.id} if kept else {}
    before = [] if kept else [item.to_dict() for item in first.output]
    for items, told in (
        ([output], f"No tool output found for function call {listen.call_id}"),
        (
            [output, {**output, "call_id": "call_other"}],
            "No tool call found for function call output with call_id call_other",
        ),
        ([first.output[0].to_dict()] * 2, "Duplicate item found with id"),
    ):
        with pytest.raises(openai.BadRequestError, match=told) as caught:
            ask(client, [*before, *items], **rest)
        assert caught.value.param == "input"


def test_choices_are_those_of_chat_in_a_flatter_form(client: openai.OpenAI, said: Script) -> None:
    forms: list[tuple[Any, Any]] = [
        ("none", "none"),
        ("auto", "auto"),
        ("required", "required"),
        ({"type": "function", "name": "look"}, {"type": "function", "function": {"name": "look"}}),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "listen"}]},
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "listen"}}]},
            },
        ),
    ]
    told = {key: value for key, value in FUNCTION.items() if key != "type"}
    chat_tools: Any = [{"type": "function", "function": {**told, "name": name}} for name in ("look", "listen")]
    for ours, chats in forms:
        answer = ask(client, tool_choice=ours)
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "What is new?"}], tools=chat_tools, tool_choice=chats
        )
        here, there = said.requests[-2:]
        assert (here.prompt, here.grammar) == (there.prompt, there.grammar), ours
        assert answer.to_dict()["tool_choice"] == ours


def test_strict_binds_the_arguments(client: openai.OpenAI, said: Script) -> None:
    ask(client, tools=[{**FUNCTION, "strict": True}])
    assert said.requests[-1].grammar is not None
    ask(client, tools=[{**FUNCTION, "strict": None}])
    assert said.requests[-1].grammar is None


class Look(BaseModel):
    """Look outside."""

    at: str


def test_the_client_parses_the_arguments(client: openai.OpenAI, said: Script) -> None:
    said.texts = ['<tool_call>{"name": "Look", "arguments": {"at": "sky"}}</tool_call>']
    tool: Any = openai.pydantic_function_tool(Look)
    flat: Any = {"type": "function", **tool["function"]}
    parsed = client.responses.parse(model=MODEL, input="Look!", tools=[flat])
    call = parsed.output[0]
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"at": "sky"}
    with client.responses.stream(model=MODEL, input="Look!", tools=[flat]) as stream:
        heard = [event.snapshot for event in stream if event.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    assert heard[-1] == call.arguments == final.output[0].arguments  # type: ignore[union-attr]
    outputs: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "Blue."}]
    said.texts = ["Blue, then."]
    again = client.responses.create(model=MODEL, input=[{"role": "user", "content": "Look!"}, *parsed.output, *outputs])  # type: ignore[list-item]
    assert again.output_text == "Blue, then."
