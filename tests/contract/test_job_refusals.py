"""What no job is created with: wrong fields by their path, bodies that are not JSON."""

import json
from typing import Any

import httpx2
import openai
import pytest

MODEL = "tunesmith-nano"

STRING_CHECK = {"type": "string_check", "name": "a", "input": "{{sample.output_text}}", "reference": "x", "operation": "neq"}
SIMILARITY = {
    "type": "text_similarity",
    "input": "a",
    "reference": "b",
    "evaluation_metric": "rouge_l",
    "pass_threshold": 0.5,
}
PYTHON = {"type": "python", "name": "p", "source": "def grade(sample, item): return 1.0", "image_tag": "2025-05-08"}
JUDGE_INPUT = [
    {"role": "system", "content": "Score."},
    {"role": "user", "type": "message", "content": {"type": "input_text", "text": "{{item.x}}"}},
    {
        "role": "user",
        "content": [
            "and",
            {"type": "output_text", "text": "y"},
            {"type": "input_image", "image_url": "{{item.url}}", "detail": "low", "file_id": None},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        ],
    },
]
SCORE = {
    "type": "score_model", "name": "s", "model": "judge", "input": JUDGE_INPUT, "range": [0, 5],
    "sampling_params": {"temperature": 0.5, "top_p": None, "max_completions_tokens": 64, "reasoning_effort": "low"},
}  # fmt: skip
LABEL = {
    "type": "label_model",
    "name": "l",
    "model": "j",
    "input": JUDGE_INPUT,
    "labels": ["a", "b"],
    "passing_labels": ["a"],
}
MULTI = {"type": "multi", "graders": {"a": STRING_CHECK, "b": SIMILARITY}, "calculate_output": "0.5 * a + b"}


def reinforcement(grader: object) -> dict[str, Any]:
    return {"method": {"type": "reinforcement", "reinforcement": {"grader": grader}}}


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"model": None}, "model", "invalid_type"),
        ({"training_file": 7}, "training_file", "invalid_type"),
        ({"colour": "red"}, "colour", "unknown_parameter"),
        ({"seed": -1}, "seed", "invalid_value"),
        ({"seed": 2**31}, "seed", "invalid_value"),
        ({"seed": 1.5}, "seed", "invalid_type"),
        ({"suffix": ""}, "suffix", "invalid_value"),
        ({"suffix": "x" * 65}, "suffix", "invalid_value"),
        ({"suffix": "nul\x00"}, "suffix", "invalid_value"),
        ({"metadata": {f"k{i}": "v" for i in range(17)}}, "metadata", "invalid_value"),
        ({"metadata": {"k" * 65: "v"}}, "metadata", "invalid_value"),
        ({"metadata": {"k": "v" * 513}}, "metadata", "invalid_value"),
        ({"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs", "invalid_value"),
        ({"hyperparameters": {"n_epochs": True}}, "hyperparameters.n_epochs", "invalid_value"),
        ({"hyperparameters": {"batch_size": 257}}, "hyperparameters.batch_size", "invalid_value"),
        ({"hyperparameters": {"learning_rate_multiplier": 0}}, "hyperparameters.learning_rate_multiplier", "invalid_value"),
        ({"hyperparameters": {"beta": 1}}, "hyperparameters.beta", "unknown_parameter"),
        ({"hyperparameters": {}, "method": {"type": "supervised"}}, "hyperparameters", None),
        ({"method": {"type": "sft"}}, "method.type", "invalid_value"),
        ({"method": {}}, "method.type", "missing_required_parameter"),
        ({"method": {"type": "supervised", "dpo": {}}}, "method", "invalid_value"),
        ({"method": {"type": "reinforcement", "dpo": {}}}, "method", "invalid_value"),
        (
            {"method": {"type": "dpo", "reinforcement": {"grader": PYTHON}}},
            "method",
            "invalid_value",
        ),
        (
            {"method": {"type": "reinforcement", "reinforcement": {}}},
            "method.reinforcement.grader",
            "missing_required_parameter",
        ),
        (
            {"method": {"type": "dpo", "dpo": {"hyperparameters": {"eval_samples": 1}}}},
            "method.dpo.hyperparameters.eval_samples",
            "unknown_parameter",
        ),
        (
            {"method": {"type": "reinforcement", "reinforcement": {"grader": PYTHON, "tools": []}}},
            "method.reinforcement.tools",
            "unknown_parameter",
        ),
        ({"method": {"type": "reinforcement"}}, "method", "invalid_value"),
        (
            {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 2.5}}}},
            "method.dpo.hyperparameters.beta",
            "invalid_value",
        ),
        (
            {
                "method": {
                    "type": "reinforcement",
                    "reinforcement": {"grader": PYTHON, "hyperparameters": {"eval_samples": 0}},
                }
            },
            "method.reinforcement.hyperparameters.eval_samples",
            "invalid_value",
        ),
        ({"integrations": [{"type": "mlflow", "wandb": {"project": "p"}}]}, "integrations[0].type", "invalid_value"),
        ({"integrations": [{"type": "wandb", "wandb": {}}]}, "integrations[0].wandb.project", "missing_required_parameter"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}] * 6}, "integrations", "invalid_value"),
    ],
    ids=str,
)
def test_a_wrong_field_is_refused_by_its_path(
    http: httpx2.Client, training_file: str, change: Any, param: str, code: str
) -> None:
    answer = http.post("/v1/fine_tuning/jobs", json={"model": MODEL, "training_file": training_file, **change})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert param in error["message"]


@pytest.mark.parametrize(
    ("knob", "value", "span"),
    [
        ("learning_rate_multiplier", 1e300, "a number above 0 and at most 1e+30 (got 1e+300)"),
        ("learning_rate_multiplier", -1, "a number above 0 (got -1)"),
        ("eval_interval", 2**40, "a whole number from 1 to 2147483647 (got 1099511627776)"),
        ("eval_samples", 257, "a whole number from 1 to 256 (got 257)"),
    ],
)
def test_a_number_is_told_the_bound_that_it_breaks(
    http: httpx2.Client, training_file: str, knob: str, value: float, span: str
) -> None:
    block = {"grader": PYTHON, "hyperparameters": {knob: value}}
    method = {"type": "reinforcement", "reinforcement": block}
    answer = http.post("/v1/fine_tuning/jobs", json={"model": MODEL, "training_file": training_file, "method": method})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].endswith(f"must be 'auto' or {span}.")


GRADER = "method.reinforcement.grader"


@pytest.mark.parametrize(
    ("grader", "param"),
    [
        ({**STRING_CHECK, "operation": "equals"}, f"{GRADER}.operation"),
        ({**SIMILARITY, "evaluation_metric": "chrf"}, f"{GRADER}.evaluation_metric"),
        ({"type": "python", "name": "p"}, f"{GRADER}.source"),
        ({**PYTHON, "source": "#" * 256 * 1024}, f"{GRADER}.source"),
        ({**SCORE, "range": [1]}, f"{GRADER}.range"),
        ({**SCORE, "input": []}, f"{GRADER}.input"),
        ({**SCORE, "input": [{"role": "tool", "content": "x"}]}, f"{GRADER}.input[0].role"),
        ({**SCORE, "input": [{"role": "user", "content": [{"type": "video"}]}]}, f"{GRADER}.input[0].content[0].type"),
        ({**SCORE, "sampling_params": {"top_p": 2}}, f"{GRADER}.sampling_params.top_p"),
        ({**LABEL, "passing_labels": ["c"]}, f"{GRADER}.passing_labels"),
        ({**LABEL, "labels": []}, f"{GRADER}.labels"),
        ({**MULTI, "graders": {}}, f"{GRADER}.graders"),
        ({**MULTI, "graders": {"a-b": STRING_CHECK}}, f"{GRADER}.graders"),
        ({**MULTI, "graders": {"min": STRING_CHECK}}, f"{GRADER}.graders"),
        ({**MULTI, "calculate_output": "a + c"}, f"{GRADER}.calculate_output"),
        ({**MULTI, "calculate_output": "a +"}, f"{GRADER}.calculate_output"),
        ({**MULTI, "calculate_output": "a.__class__"}, f"{GRADER}.calculate_output"),
        ({**STRING_CHECK, "input": "{{ item.x"}, f"{GRADER}.input"),
        ({**STRING_CHECK, "reference": "{{ env.HOME }}"}, f"{GRADER}.reference"),
        ({**STRING_CHECK, "reference": "{{ sample.text }}"}, f"{GRADER}.reference"),
        ({**SCORE, "range": [1, 0]}, f"{GRADER}.range"),
        ({**MULTI, "graders": [SIMILARITY]}, f"{GRADER}.graders"),
        ({**MULTI, "graders": [STRING_CHECK, STRING_CHECK]}, f"{GRADER}.graders"),
        ({**MULTI, "graders": {"a": MULTI}}, f"{GRADER}.graders.a.type"),
        ({"type": "regex"}, f"{GRADER}.type"),
        ({}, f"{GRADER}.type"),
        ("string_check", GRADER),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_grader_is_refused_by_its_path(http: httpx2.Client, training_file: str, grader: Any, param: str) -> None:
    answer = http.post(
        "/v1/fine_tuning/jobs", json={"model": MODEL, "training_file": training_file, **reinforcement(grader)}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_metadata_that_is_too_much_is_told_with_how_much(client: openai.OpenAI, training_file: str) -> None:
    for metadata, told in (
        ({f"k{i}": "v" for i in range(17)}, "'metadata' holds at most 16 pairs (got 17)."),
        ({"a": "v" * 513}, "values of at most 512; 'a' has 1 and its value 513."),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.fine_tuning.jobs.create(model=MODEL, training_file=training_file, metadata=metadata)
        assert told in caught.value.message


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "json"),
        (b"[]", "json"),
        (b"{", "json"),
        (b'"x"', "json"),
        (b"\xff\xfe", "json"),
        (b"model=x", "x-www-form-urlencoded"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(http: httpx2.Client, content: bytes, kind: str) -> None:
    answer = http.post("/v1/fine_tuning/jobs", content=content, headers={"content-type": f"application/{kind}"})
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_text_that_utf8_cannot_hold_is_refused_with_a_readable_answer(http: httpx2.Client, training_file: str) -> None:
    for body in (
        {"suffix": "\ud800"},
        {"\ud800": 1},
        {"metadata": {"a": "\udfff"}},
        {"metadata": {"\udfff": "a"}},
        {"model": "\ud800"},
        reinforcement({**PYTHON, "name": "\ud800"}),
        reinforcement({**PYTHON, "source": "\x00"}),
        reinforcement({**STRING_CHECK, "reference": "\udfff"}),
        {
            "method": {
                "type": "reinforcement",
                "reinforcement": {
                    "grader": PYTHON,
                    "response_format": {"type": "json_schema", "name": "n", "schema": {"enum": [{"\udfff": 1}]}},
                },
            }
        },
    ):
        text = json.dumps({"model": MODEL, "training_file": training_file, **body})
        answer = http.post("/v1/fine_tuning/jobs", content=text, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text
