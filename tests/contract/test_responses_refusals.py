"""Every field of the Responses API does its work, is without effect, or is refused by its name with the way out."""

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai.types.responses import InputItemListParams
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from openai.types.responses.response_create_params import StreamOptions as StreamOptionsParam
from openai.types.responses.response_retrieve_params import ResponseRetrieveParamsStreaming
from openai.types.shared_params import Reasoning as ReasoningParam

from scripted import MODEL, Script, scripted
from tunesmith.api.responses import GetResponse, ListItems
from tunesmith.api.responses_items import OTHER_ITEMS, OTHER_TOOLS
from tunesmith.api.responses_schema import NOT_YET, WITHOUT_EFFECT, CreateResponse, Reasoning, StreamOptions

PAGE = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()
FUNCTION: Any = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False}
IMAGE = {"type": "input_image", "image_url": "https://pictures.test/a.png", "detail": "auto"}

#: For each field that does its work, a value; the fields of their own are tested beside this file.
WORKS: dict[str, Any] = {
    "model": MODEL,
    "input": "Some JSON.",
    "instructions": "Be brief.",
    "include": ["message.output_text.logprobs"],
    "max_output_tokens": 16,
    "metadata": {"k": "v"},
    "parallel_tool_calls": False,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None, "context": "auto", "mode": "standard"},
    "store": True,
    "stream": False,
    "temperature": 0.5,
    "text": {"format": {"type": "json_object"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [FUNCTION],
    "top_logprobs": 2,
    "top_p": 0.5,
    "truncation": "auto",
}
IDLE: dict[str, Any] = {
    "max_tool_calls": 3,
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
    "safety_identifier": "s",
    "service_tier": "auto",
    "user": "u",
}
REFUSED: dict[str, Any] = {
    "access_programs": {"cyber": "standard"},
    "background": True,
    "background_options": {"completion_window": "soonest"},
    "context_management": [{"type": "compaction"}],
    "conversation": "conv_1",
    "image": {"context_compression": "auto"},
    "moderation": {"model": "m"},
    "prompt": {"id": "pmpt_1"},
}


@pytest.fixture(scope="module")
def script(served: Any) -> Script:
    return scripted(served)


@pytest.fixture(autouse=True)
def said(script: Script) -> Script:
    script.clear()
    return script


def post(http: httpx2.Client, **wishes: Any) -> httpx2.Response:
    return http.post("/v1/responses", json={"model": MODEL, "input": "Hello", **wishes})


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        (ResponseCreateParamsStreaming, CreateResponse),
        (StreamOptionsParam, StreamOptions),
        (ReasoningParam, Reasoning),
        (ResponseRetrieveParamsStreaming, GetResponse),
        (InputItemListParams, ListItems),
    ],
    ids=lambda value: value.__name__,
)
def test_each_parameter_of_the_official_client_is_known_and_no_other(sent: Any, taken: Any) -> None:
    known = {name for kind in (*sent.__orig_bases__, sent) for name in getattr(kind, "__annotations__", {})}
    assert set(taken.model_fields) - {"api_version"} == known


def test_each_field_has_its_place() -> None:
    works, idle = set(WORKS), set(IDLE) | {"stream_options"}
    assert works | idle | set(REFUSED) == set(CreateResponse.model_fields)
    assert (idle, set(REFUSED)) == (WITHOUT_EFFECT, set(NOT_YET))
    lines = {line.split(":")[0]: set(re.findall(r"`([\w.]+)`", line)) for line in PAGE.splitlines() if ":" in line}
    assert lines["- Without effect in a response"] >= WITHOUT_EFFECT
    assert set(NOT_YET) <= lines["- Not available in a response, refused by name with the way out"]


def test_a_request_may_have_every_field_that_works_or_is_idle(http: httpx2.Client) -> None:
    answer = post(http, **WORKS, **IDLE)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    unsaid = {"input", "include", "tools", "stream"}
    echoed = {name: value for name, value in {**WORKS, **IDLE}.items() if name not in unsaid}
    echoed |= {"reasoning": {"effort": None, "summary": None}, "service_tier": "default"}
    del echoed["prompt_cache_options"]
    assert {name: told[name] for name in echoed} == echoed
    assert told["tools"] == [{**FUNCTION, "description": None}]
    streamed = post(http, stream=True, stream_options={"include_obfuscation": True}).text
    assert "obfuscation" not in streamed
    every_null = post(http, **dict.fromkeys(set(CreateResponse.model_fields) - {"model", "input"}))
    assert every_null.status_code == 200, every_null.text


@pytest.mark.parametrize("field", REFUSED)
def test_what_this_release_lacks_is_refused_with_the_way_out(http: httpx2.Client, field: str) -> None:
    answer = post(http, **{field: REFUSED[field]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "not_available", field)
    assert error["message"].endswith(f"{NOT_YET[field][1]}.")
    assert error["message"].startswith(f"'{field}' ")
    for value in NOT_YET[field][0]:
        assert post(http, **{field: value}).status_code == 200


@pytest.mark.parametrize(
    ("wishes", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": ""}, "input", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": 3}, "input", "invalid_type"),
        ({"seed": 1}, "seed", "unknown_parameter"),
        ({"max_tokens": 1}, "max_tokens", "unknown_parameter"),
        ({"max_output_tokens": 15}, "max_output_tokens", "invalid_value"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"top_p": -0.1}, "top_p", "invalid_value"),
        ({"top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"truncation": "some"}, "truncation", "invalid_value"),
        ({"include": ["everything"]}, "include[0]", "invalid_value"),
        ({"metadata": {"k": "v" * 513}}, "metadata", "invalid_value"),
        ({"stream_options": {}}, "stream_options", None),
        ({"previous_response_id": "resp_none"}, "previous_response_id", "previous_response_not_found"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary", "not_available"),
        ({"reasoning": {"effort": "loud"}}, "reasoning.effort", "invalid_value"),
        ({"text": {"verbosity": "high"}}, "text.verbosity", "not_available"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
        ({"text": {"format": {"type": "json_object"}}}, "input", None),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", "missing_required_parameter"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema", "missing_required_parameter"),
        ({"text": {"format": {"type": "text", "name": "n"}}}, "text.format.name", None),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {"not": {}}}}}, "text.format", None),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{**FUNCTION, "name": "a b"}]}, "tools[0].name", None),
        ({"tools": [{**FUNCTION, "defer_loading": True}]}, "tools[0].defer_loading", "not_available"),
        ({"tools": [{**FUNCTION, "function": {}}]}, "tools[0].function", "unknown_parameter"),
        ({"tools": [{"type": "magic"}]}, "tools[0].type", "invalid_value"),
        ({"tools": [{**FUNCTION, "strict": True, "parameters": {"not": {}}}]}, "tools[0].parameters", None),
        ({"tool_choice": "must"}, "tool_choice", None),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice.name", None),
        ({"tools": [FUNCTION], "tool_choice": {"type": "function"}}, "tool_choice.name", "missing_required_parameter"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "file_search"}}, "tool_choice.type", "not_available"),
        (
            {"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}},
            "tool_choice.tools[0].type",
            "not_available",
        ),
    ],
)
def test_a_refusal_names_the_field(http: httpx2.Client, wishes: Any, param: str, code: str | None) -> None:
    answer = post(http, **wishes)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code), error


@pytest.mark.parametrize(
    ("item", "param", "code"),
    [
        ({}, "input[1].type", "not_available"),
        ({"type": "song"}, "input[1].type", "invalid_value"),
        ({"role": "robot", "content": "x"}, "input[1].role", "invalid_value"),
        ({"role": "user"}, "input[1].content", "missing_required_parameter"),
        ({"role": "user", "content": "x", "mood": "good"}, "input[1].mood", "unknown_parameter"),
        ({"role": "user", "content": []}, "input[1].content", None),
        ({"role": "user", "content": ["x"]}, "input[1].content[0]", "invalid_type"),
        ({"role": "user", "content": [{"type": "output_text", "text": "x"}]}, "input[1].content[0].type", "invalid_value"),
        (
            {"role": "assistant", "content": [{"type": "input_text", "text": "x"}]},
            "input[1].content[0].type",
            "invalid_value",
        ),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[1].content[0].text", "missing_required_parameter"),
        ({"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}, "input[1].content[0].type", "not_available"),
        ({"role": "user", "content": [{**IMAGE, "file_id": "f"}]}, "input[1].content[0].file_id", "not_available"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "input[1].call_id", "missing_required_parameter"),
        ({"type": "function_call_output", "call_id": "c"}, "input[1].output", "missing_required_parameter"),
        ({"type": "function_call_output", "call_id": "c", "output": "x"}, "input", None),
        ({"role": "user", "content": "\ud800"}, "input[1]", None),
    ],
)
def test_a_refusal_names_the_item(http: httpx2.Client, item: Any, param: str, code: str | None) -> None:
    body = json.dumps({"model": MODEL, "input": [{"role": "user", "content": "x"}, item]})
    answer = http.post("/v1/responses", content=body, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code), error


@pytest.mark.parametrize("kind", sorted(OTHER_ITEMS))
def test_items_that_never_occur_here_are_told_apart_from_nonsense(client: openai.OpenAI, kind: str) -> None:
    with pytest.raises(openai.BadRequestError, match="not available in this release") as caught:
        client.responses.create(model=MODEL, input=[{"type": kind, "id": "x"}])  # type: ignore[list-item,misc]
    assert caught.value.param == "input[0].type"


@pytest.mark.parametrize("kind", sorted(OTHER_TOOLS))
def test_tools_that_openai_runs_are_refused_by_their_type(client: openai.OpenAI, kind: str) -> None:
    with pytest.raises(openai.BadRequestError, match=f"of type '{kind}' is not available in this release") as caught:
        client.responses.create(model=MODEL, input="x", tools=[{"type": kind}])  # type: ignore[list-item,misc]
    assert caught.value.param == "tools[0].type"


@pytest.mark.parametrize("path", ["/v1/responses/compact"])
def test_paths_to_come_are_told_as_such(http: httpx2.Client, path: str) -> None:
    assert http.post(path, json={}).json()["error"]["code"] == "not_available"
