"""Graders over the wire: `validate` and `run` with the official client, and what they say of bad input."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

ROOT = "/v1/fine_tuning/alpha/graders"
SAME: Any = {
    "type": "string_check", "name": "same", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}",
    "operation": "eq",
}  # fmt: skip
NEAR: Any = {
    "type": "text_similarity", "name": "near", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}",
    "evaluation_metric": "rouge_l",
}  # fmt: skip
BOTH: Any = {
    "type": "multi", "name": "both", "graders": {"same": SAME, "near": NEAR}, "calculate_output": "same + 2 * near ^ 2"
}  # fmt: skip
JUDGED: Any = {"name": "judged", "model": "tunesmith-nano", "input": [{"role": "user", "content": "x"}]}
ITEM = {"answer": "the cat sat"}


def run(client: openai.OpenAI, grader: Any, sample: str, item: Any = None) -> dict[str, Any]:
    return client.fine_tuning.alpha.graders.run(grader=grader, model_sample=sample, item=item or {}).to_dict()


def flags(answer: dict[str, Any]) -> dict[str, str | None]:
    """Return the flags that are set, with their details."""
    errors = answer["metadata"]["errors"]
    return {name: errors[f"{name}_details"] for name, value in errors.items() if value is True}


def test_a_grader_is_echoed_as_it_came_and_given_a_name(client: openai.OpenAI, conforms: Callable[..., None]) -> None:
    told = client.fine_tuning.alpha.graders.validate(grader=SAME)
    conforms(told, "ValidateGraderResponse")
    assert told.to_dict() == {"grader": SAME}
    unnamed = {key: value for key, value in SAME.items() if key != "name"}
    names = [client.fine_tuning.alpha.graders.validate(grader=unnamed).to_dict()["grader"].pop("name") for _ in range(2)]
    assert names[0] != names[1]
    assert all(name.startswith("grader-") and len(name) == 19 for name in names)


def test_what_has_another_name_in_the_guides_is_echoed_as_the_schema_has_it(client: openai.OpenAI) -> None:
    told = client.fine_tuning.alpha.graders.validate(grader={**SAME, "operation": "neq"}).to_dict()
    assert told["grader"]["operation"] == "ne"
    listed = {**BOTH, "graders": [SAME, NEAR]}
    assert client.fine_tuning.alpha.graders.validate(grader=listed).to_dict(warnings=False) == {"grader": BOTH}


def test_what_templates_become_is_told_of_nested_graders_too(http: httpx2.Client) -> None:
    odd = {**SAME, "input": "{{ sample.output_json.n[1] }}", "reference": "{{ item.deep }}: {{item.none}}"}
    asked = {"grader": {**BOTH, "graders": {"same": odd, "near": NEAR}}, "model_sample": '{"n": [1, true]}'}
    answer = http.post("/tunesmith/v1/graders/templates", json={**asked, "item": {"answer": "x", "deep": {"a": 1.0}}})
    assert answer.status_code == 200, answer.text
    told = {each["field"]: [(value["path"], value["text"]) for value in each["values"]] for each in answer.json()["data"]}
    assert told == {
        "graders.same.input": [("sample.output_json.n[1]", "true")],
        "graders.same.reference": [("item.deep", '{"a": 1.0}'), ("item.none", None)],
        "graders.near.input": [("sample.output_text", '{"n": [1, true]}')],
        "graders.near.reference": [("item.answer", "x")],
    }
    lost = answer.json()["data"][1]["values"][1]["error"]
    assert lost == "{{ item.none }}: there is no item.none"
    assert http.post("/tunesmith/v1/graders/templates", json={**asked, "more": 1}).json()["error"]["param"] == "more"


def test_a_grade_conforms(client: openai.OpenAI, conforms: Callable[..., None]) -> None:
    for sample, reward in (("the cat sat", 1.0), ("a dog", 0.0)):
        answer = run(client, SAME, sample, ITEM)
        conforms(answer, "RunGraderResponse")
        assert (answer["reward"], answer["metadata"]["name"], answer["metadata"]["type"]) == (reward, "same", "string_check")
        assert flags(answer) == {}
        assert 0 <= answer["metadata"]["execution_time"] < 60
        assert answer["sub_rewards"] == answer["metadata"]["scores"] == answer["model_grader_token_usage_per_model"] == {}


def test_multi_tells_what_each_grader_said(client: openai.OpenAI, conforms: Callable[..., None]) -> None:
    answer = run(client, BOTH, "the cat sat", ITEM)
    conforms(answer, "RunGraderResponse")
    assert (answer["reward"], answer["sub_rewards"]) == (3.0, {"same": 1.0, "near": 1.0})
    answer = run(client, BOTH, "the cat", ITEM)
    assert answer["sub_rewards"] == answer["metadata"]["scores"] == {"same": 0.0, "near": pytest.approx(0.8)}
    assert answer["reward"] == pytest.approx(2 * 0.8**2)


@pytest.mark.parametrize(
    ("changed", "sample", "item", "flag"),
    [
        ({"reference": "{{ item.other }}"}, "x", ITEM, "invalid_variable_error"),
        ({"reference": "{{ item.answer[0] }}"}, "x", ITEM, "invalid_variable_error"),
        ({"reference": "{{ item.answer.length }}"}, "x", ITEM, "invalid_variable_error"),
        ({"reference": "{{ sample.output_tools[0].function.name }}"}, "x", ITEM, "invalid_variable_error"),
        ({"input": "{{ sample.output_json.a }}"}, "no json", ITEM, "sample_parse_error"),
        ({"input": "{{ sample.output_json.a }}"}, '{"b": 1}', ITEM, "invalid_variable_error"),
    ],
)
def test_a_graders_failure_is_an_answer_with_reward_0(
    client: openai.OpenAI, conforms: Callable[..., None], changed: Any, sample: str, item: Any, flag: str
) -> None:
    answer = run(client, {**SAME, **changed}, sample, item)
    conforms(answer, "RunGraderResponse")
    (told,) = flags(answer).items()
    assert (answer["reward"], told[0]) == (0.0, flag)
    assert told[1]


def test_a_failing_grader_fails_the_multi_that_holds_it(client: openai.OpenAI) -> None:
    lost = {**NEAR, "reference": "{{ item.other }}"}
    answer = run(client, {**BOTH, "graders": {"same": SAME, "near": lost}}, "the cat sat", ITEM)
    assert answer["reward"] == 0.0
    assert flags(answer) == {"invalid_variable_error": "near: {{ item.other }}: there is no item.other"}
    assert answer["sub_rewards"] == {"same": 1.0, "near": 0.0}
    assert answer["metadata"]["scores"] == {"same": 1.0, "near": None}


@pytest.mark.parametrize(
    "formula", ["1 / (same - 1)", "log(same - 1)", "sqrt(0 - same)", "exp(1000 * same)", "9e307 * 9 + same"]
)
def test_a_formula_without_a_value_is_an_error_of_the_grade(client: openai.OpenAI, formula: str) -> None:
    answer = run(client, {**BOTH, "calculate_output": formula}, "the cat sat", ITEM)
    assert (answer["reward"], list(flags(answer))) == (0.0, ["formula_parse_error"])
    assert answer["sub_rewards"] == {"same": 1.0, "near": 1.0}


def test_the_parts_of_a_sample_that_is_json(client: openai.OpenAI) -> None:
    picked = {**SAME, "input": "{{ sample.output_json.rows[1]['a b'] }}|{{sample.choices[0].message.role}}"}
    for value, shown in (
        ("x", "x"),
        (1.0, "1.0"),
        (True, "true"),
        (None, "null"),
        ([1, "ü"], '[1, "ü"]'),
        ("{{ item.y }}",) * 2,
    ):
        sample = json.dumps({"rows": [0, {"a b": value}]})
        answer = run(client, picked, sample, {"answer": f"{shown}|assistant"})
        assert (answer["reward"], flags(answer)) == (1.0, {}), value


def test_the_first_form_of_the_request_is_taken(http: httpx2.Client) -> None:
    grader = {**SAME, "reference": "{{ item.reference_answer }}"}
    body = {"grader": grader, "model_sample": "1.0", "reference_answer": 1.0}
    assert http.post(f"{ROOT}/run", json=body).json()["reward"] == 1.0
    error = http.post(f"{ROOT}/run", json={**body, "item": {"a": 1}}).json()["error"]
    assert (error["param"], error["code"]) == ("reference_answer", "invalid_value")


CARET = """'grader.calculate_output' speaks of 'far', which is no grader of it (it has near, same)
  same + 2 * far
             ^"""


def test_a_wrong_formula_is_shown_with_a_caret(http: httpx2.Client) -> None:
    answer = http.post(f"{ROOT}/validate", json={"grader": {**BOTH, "calculate_output": "same + 2 * far"}})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(CARET)


@pytest.mark.parametrize(
    ("grader", "param"),
    [
        ({**SAME, "type": "regex"}, "grader.type"),
        ({**SAME, "input": "{{ item. }}"}, "grader.input"),
        ({**SAME, "input": 3}, "grader.input"),
        ({**SAME, "weight": 3}, "grader.weight"),
        ({**BOTH, "graders": {"same": BOTH}}, "grader.graders.same.type"),
        ({**BOTH, "graders": {"same": {**SAME, "reference": "{{ me }}"}}}, "grader.graders.same.reference"),
        ({**NEAR, "evaluation_metric": "cosine"}, "grader.evaluation_metric"),
        (
            {**BOTH, "graders": {"same": SAME, "near": {**NEAR, "evaluation_metric": "cosine"}}},
            "grader.graders.near.evaluation_metric",
        ),
        ({**JUDGED, "type": "score_model", "range": [1, 0]}, "grader.range"),
        ({**JUDGED, "type": "label_model", "labels": ["a"], "passing_labels": ["b"]}, "grader.passing_labels"),
        ([], "grader"),
    ],
    ids=lambda value: str(value)[:60],
)
@pytest.mark.parametrize("verb", ["validate", "run"])
def test_a_grader_that_cannot_work_is_refused_by_its_field(http: httpx2.Client, verb: str, grader: Any, param: str) -> None:
    body = {"grader": grader} | ({"model_sample": "x"} if verb == "run" else {})
    answer = http.post(f"{ROOT}/{verb}", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert param in error["message"] or "cosine" in error["message"]


def test_long_texts_are_told_and_not_measured(client: openai.OpenAI) -> None:
    answer = run(client, NEAR, "x" * 70_000, {"answer": "x"})
    assert flags(answer) == {"other_error": "rouge_l measures up to 65536 characters, not 70000"}
