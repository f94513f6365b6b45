"""Counting the tokens of a response's input: as many as the same response is told to have had, refused as it is refused."""

from typing import Any

import openai
import pytest
from openai.types.responses import InputTokenCountParams

from scripted import MODEL, scripted
from tunesmith.api.input_tokens import CountTokens

TOOL: Any = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}


def test_the_count_is_what_the_response_has(served: Any, client: openai.OpenAI) -> None:
    said = scripted(served)
    first = client.responses.create(model=MODEL, input="Hello", max_output_tokens=16)
    asked: list[dict[str, Any]] = [
        {"input": "What is new?"},
        {"input": [{"role": "user", "content": "What is new?"}], "instructions": "Be brief.", "tools": [TOOL]},
        {"input": "And now?", "previous_response_id": first.id},
        {"input": [{"role": "user", "content": "word " * 9000}, {"role": "user", "content": "x"}], "truncation": "auto"},
    ]
    counted: list[int] = []
    for each in asked:
        n_before = len(said.requests)
        told = client.responses.input_tokens.count(model=MODEL, **each)
        assert told.object == "response.input_tokens"
        assert len(said.requests) == n_before, "nothing is computed for a count"
        usage = client.responses.create(model=MODEL, max_output_tokens=16, **each).usage
        assert usage is not None
        assert told.input_tokens == usage.input_tokens
        counted.append(told.input_tokens)
    assert counted[0] < counted[1]
    assert counted[0] < counted[2]
    assert counted[3] < 100, "what does not fit is left out before it is counted"


@pytest.mark.parametrize(
    ("wishes", "param", "code"),
    [
        ({"model": "nobody"}, "model", "model_not_found"),
        ({"input": "word " * 9000}, "input", "context_length_exceeded"),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"previous_response_id": "resp_x"}, "previous_response_id", "previous_response_not_found"),
        ({"conversation": "conv_x"}, "conversation", "not_available"),
        ({"personality": "friendly"}, "personality", "not_available"),
        ({"extra_body": {"max_output_tokens": 16}}, "max_output_tokens", "unknown_parameter"),
    ],
)
def test_a_refusal_is_that_of_the_response(client: openai.OpenAI, wishes: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as caught:
        client.responses.input_tokens.count(**{"model": MODEL, "input": "x", **wishes})
    assert (caught.value.param, caught.value.code) == (param, code)


def test_each_parameter_of_the_official_client_is_known_and_no_other() -> None:
    assert set(CountTokens.model_fields) == set(InputTokenCountParams.__annotations__)


def test_the_limits_of_every_tunable_base_are_told_under_each_of_its_names(served: Any, client: openai.OpenAI) -> None:
    served.composed.services.aliases.add(served.scope, MODEL, "mine")
    told: Any = client.get("/fine_tuning/model_limits", cast_to=object)
    assert [limits["model"] for limits in told["data"]] == [MODEL, "mine"]
    base, settings = served.composed.services.bases.get(MODEL), served.composed.settings
    for limits in told["data"]:
        assert limits["max_tokens"] == base.context_length
        assert limits["max_file_bytes"] == settings.max_file_bytes
        assert limits["max_running_jobs"] == settings.training_slots
        assert limits["max_training_examples"] == {"supervised": None, "dpo": None, "reinforcement": 50_000}
