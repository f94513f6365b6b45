"""Comparisons: what each model would have said alone, all at once, whole or as one stream."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

from near import NANO, TUNED, lay_out

PATH = "/tunesmith/v1/compare"
SAID: list[Any] = [{"role": "user", "content": "Hello there"}]
ASKED: dict[str, Any] = {"messages": SAID, "max_tokens": 12, "temperature": 1, "seed": 5}


@pytest.fixture(scope="module")
def wire(served: Any, http: httpx2.Client) -> httpx2.Client:
    lay_out(served)
    return http


def texts(client: openai.OpenAI) -> list[str | None]:
    """Return what both models say alone."""
    return [
        client.chat.completions.create(model=name, **ASKED).choices[0].message.content  # type: ignore[call-overload]
        for name in (NANO, TUNED)
    ]


def events(answer: httpx2.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_each_says_what_it_says_alone(wire: httpx2.Client, client: openai.OpenAI, conforms: Callable[..., None]) -> None:
    told = wire.post(PATH, json={**ASKED, "models": [NANO, TUNED]}).json()
    assert (told["object"], told["seed"]) == ("tunesmith.comparison", 5)
    assert [(each["index"], each["model"]) for each in told["data"]] == [(0, NANO), (1, TUNED)]
    for each in told["data"]:
        conforms(each["completion"], "CreateChatCompletionResponse")
    said = [each["completion"]["choices"][0]["message"]["content"] for each in told["data"]]
    assert said == texts(client)
    assert said[0] != said[1]


def test_a_stream_tells_all_by_their_index(
    wire: httpx2.Client, client: openai.OpenAI, conforms: Callable[..., None]
) -> None:
    body = {**ASKED, "models": [NANO, TUNED], "stream": True, "stream_options": {"include_usage": True}}
    said, usages = ["", ""], 0
    for event in events(wire.post(PATH, json=body)):
        conforms(event["chunk"], "CreateChatCompletionStreamResponse")
        assert event["model"] == (NANO, TUNED)[event["index"]]
        usages += event["chunk"]["usage"] is not None
        for choice in event["chunk"]["choices"]:
            said[event["index"]] += choice["delta"].get("content") or ""
    assert said == texts(client)
    assert usages == 2


def test_a_seed_is_drawn_for_all_of_them(wire: httpx2.Client) -> None:
    body = {**ASKED, "models": [NANO, NANO, NANO], "seed": None}
    told = wire.post(PATH, json=body).json()
    assert isinstance(told["seed"], int)
    assert len({each["completion"]["choices"][0]["message"]["content"] for each in told["data"]}) == 1


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"models": [NANO]}, 400, "models"),
        ({"models": [NANO] * 5}, 400, "models"),
        ({"models": None}, 400, "models"),
        ({"models": [NANO, "nobody"]}, 404, "model"),
        ({"model": NANO}, 400, "model"),
        ({"store": True}, 400, "store"),
        ({"surprise": 1}, 400, "surprise"),
        ({"temperature": 3}, 400, "temperature"),
        ({"messages": []}, 400, "messages"),
        ({"max_tokens": 100_000}, 400, "messages"),
        ({"models": [NANO, "nobody"], "stream": True}, 404, "model"),
    ],
)
def test_refusals_name_the_field(wire: httpx2.Client, changes: dict[str, Any], status: int, param: str) -> None:
    answer = wire.post(PATH, json={**ASKED, "models": [NANO, TUNED], **changes})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


def test_a_streamed_comparison_has_no_key(wire: httpx2.Client) -> None:
    body = {**ASKED, "models": [NANO, TUNED], "stream": True}
    answer = wire.post(PATH, json=body, headers={"Idempotency-Key": "once"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")
