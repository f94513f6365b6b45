"""Answers in a form: `response_format` as the official client asks for it, of the embedded base, by a real sampler."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import jsonschema
import openai
import pydantic
import pytest

MODEL = "tunesmith-nano"
SAID: list[Any] = [{"role": "user", "content": "Answer in JSON: where is my parcel?"}]
TICKET: dict[str, Any] = {
    "type": "object",
    "properties": {
        "queue": {"type": "string", "enum": ["billing", "shipping", "other"]},
        "urgent": {"type": "boolean"},
        "days": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 3},
        "note": {"anyOf": [{"type": "string", "maxLength": 12}, {"type": "null"}]},
    },
    "required": ["queue", "urgent", "days", "note"],
    "additionalProperties": False,
}


def form(schema: Any, **more: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "ticket", "schema": schema, **more}}


def ask(client: openai.OpenAI, **wishes: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL, "messages": SAID, "max_tokens": 200, **wishes})


@pytest.mark.parametrize("seed", range(4))
def test_every_sample_keeps_to_the_schema(client: openai.OpenAI, conforms: Callable[..., None], seed: int) -> None:
    answer = ask(client, n=4, temperature=2, seed=seed, response_format=form(TICKET, strict=True))
    conforms(answer.to_dict(), "CreateChatCompletionResponse")
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), TICKET)


def test_a_pydantic_class_comes_back(client: openai.OpenAI) -> None:
    class Step(pydantic.BaseModel):
        number: int = pydantic.Field(ge=0, le=9)
        done: bool

    class Plan(pydantic.BaseModel):
        steps: list[Step] = pydantic.Field(max_length=2)

    answer = client.chat.completions.parse(model=MODEL, messages=SAID, response_format=Plan, max_tokens=200)
    plan = answer.choices[0].message.parsed
    assert plan is not None
    assert len(plan.steps) <= 2


def test_a_stream_is_the_same_answer(client: openai.OpenAI) -> None:
    wishes: Any = {"temperature": 0, "response_format": form(TICKET)}
    whole = ask(client, **wishes).choices[0].message.content
    parts = [chunk.choices[0] for chunk in ask(client, stream=True, **wishes)]
    assert "".join(part.delta.content or "" for part in parts) == whole
    assert parts[-1].finish_reason == "stop"


def test_any_object_is_one(client: openai.OpenAI) -> None:
    for choice in ask(client, n=4, seed=1, response_format={"type": "json_object"}).choices:
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)
        else:
            assert choice.message.content.startswith("{")


def test_an_answer_that_is_cut_off_says_so(client: openai.OpenAI) -> None:
    [choice] = ask(client, max_tokens=3, response_format=form(TICKET)).choices
    assert choice.finish_reason == "length"


@pytest.mark.anyio
async def test_a_form_binds_nobody_else_in_the_batch(async_client: openai.AsyncOpenAI) -> None:
    def wishes(number: int) -> dict[str, Any]:
        said = [{"role": "user", "content": f"Say hello to customer {number}."}]
        return {"model": MODEL, "messages": said, "temperature": 0, "max_tokens": 40}

    create = async_client.chat.completions.create
    alone = [(await create(**wishes(number))).choices[0].message.content for number in range(3)]
    bound = [create(**wishes(number), response_format=form(TICKET)) for number in range(3)]
    answers = await asyncio.gather(*bound, *(create(**wishes(number)) for number in range(3)))
    assert [answer.choices[0].message.content for answer in answers[3:]] == alone
    assert all(answer.choices[0].message.content.startswith('{"queue": "') for answer in answers[:3])


@pytest.mark.parametrize(
    ("value", "param", "told"),
    [
        ({"type": "xml"}, "response_format.type", "json_schema"),
        ({"type": "json_schema"}, "response_format.json_schema", "needs one"),
        ({"type": "text", "json_schema": {"name": "n"}}, "response_format.json_schema", "is for the type"),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, "response_format.json_schema.name", "required"),
        (form({}) | {"extra": 1}, "response_format.extra", "extra"),
        ({"type": "json_schema", "json_schema": {"name": "a b"}}, "response_format.json_schema.name", "a b"),
        (form("x"), "response_format.json_schema.schema", "an object"),
        (form({"type": "nonsense"}), "response_format", "Invalid type: nonsense"),
        (form({"not": {}}), "response_format", '["not"]'),
        (form({"$ref": "http://127.0.0.1:1/x"}), "response_format", "not fetch"),
        (form({"type": "string", "pattern": "("}), "response_format", "unclosed group"),
        (form({"type": "string", "minLength": 2, "maxLength": 1}), "response_format", "Unsatisfiable"),
    ],
)
def test_a_form_that_cannot_be_kept_to_is_refused(http: httpx2.Client, value: Any, param: str, told: str) -> None:
    body = {"model": MODEL, "messages": SAID, "response_format": value, "max_tokens": 5}
    answer = http.post("/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert told in error["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_nothing_can_be_written_by_is_an_error(client: openai.OpenAI, stream: bool) -> None:
    endless = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    with pytest.raises(openai.BadRequestError, match="cannot keep to the schema") as refused:
        ask(client, n=2, stream=stream, response_format=form(endless))
    assert refused.value.param == "response_format"


def test_an_object_that_nobody_told_the_model_of_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="must contain the word 'json'") as refused:
        ask(client, messages=[{"role": "user", "content": "hello"}], response_format={"type": "json_object"})
    assert refused.value.param == "messages"
