"""The methods beside supervised, through the official client: what is taken, what is echoed, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tunesmith.domain.states import Status
from tunesmith.store import jobs

MODEL = "tunesmith-nano"
EVERY = {"batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": "auto"}
SAMPLED = {"compute_multiplier": "auto", "eval_interval": "auto", "eval_samples": "auto", "reasoning_effort": "default"}
GRADER = "method.reinforcement.grader"
FORM = "method.reinforcement.response_format"

SAME: Any = {"type": "string_check", "name": "a", "input": "{{sample.output_text}}", "reference": "x", "operation": "eq"}
NEAR: Any = {
    "type": "text_similarity", "name": "b", "input": "{{ sample.output_text }}", "reference": "{{ item.answer.short }}",
    "evaluation_metric": "rouge_l", "pass_threshold": 0.5,
}  # fmt: skip
PYTHON: Any = {"type": "python", "name": "p", "source": "def grade(sample, item): return 1.0", "image_tag": "2025-05-08"}
ASKED: Any = [
    {"role": "system", "content": "Score."},
    {"role": "user", "type": "message", "content": {"type": "input_text", "text": "{{item.x}}"}},
    {
        "role": "user",
        "content": [
            "{{ item.tags[1] }}",
            {"type": "output_text", "text": "{{ sample.output_text }}"},
            {"type": "input_image", "image_url": "{{item.url}}", "detail": "low", "file_id": None},
            {"type": "input_audio", "input_audio": {"data": "{{ item.sound }}", "format": "wav"}},
        ],
    },
]
SCORE: Any = {
    "type": "score_model", "name": "s", "model": "judge", "input": ASKED, "range": [0, 5],
    "sampling_params": {"temperature": 0.5, "top_p": None, "max_completions_tokens": 64, "reasoning_effort": "low"},
    "pass_threshold": 2.5,
}  # fmt: skip
LABEL: Any = {
    "type": "label_model", "name": "l", "model": "judge", "input": ASKED, "labels": ["a", "b"], "passing_labels": ["a"],
}  # fmt: skip
MULTI: Any = {"type": "multi", "name": "m", "graders": {"a": SAME, "b": NEAR}, "calculate_output": "0.5 * a + b"}
SCHEMA: Any = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
ROW: Any = {
    "messages": [{"role": "user", "content": "What is one plus one?"}],
    "x": 1, "url": "https://pictures.test/1.png", "sound": "AAAA", "tags": ["a", None], "answer": {"short": "2"},
}  # fmt: skip


@pytest.fixture(scope="module")
def served(judging: Any) -> Any:
    return judging


def upload(client: openai.OpenAI, *rows: Any) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return client.files.create(file=("rows.jsonl", text.encode()), purpose="fine-tune").id


@pytest.fixture(scope="module")
def prompts(client: openai.OpenAI) -> str:
    return upload(client, *[ROW] * 10)


@pytest.fixture
def create(client: openai.OpenAI, prompts: str) -> Callable[..., Any]:
    """Return a function that creates a reinforcement job."""

    def make(grader: Any = SAME, *, training_file: str = prompts, validation_file: Any = prompts, **block: Any) -> Any:
        method: Any = {"type": "reinforcement", "reinforcement": {"grader": grader, **block}}
        return client.fine_tuning.jobs.create(
            model=MODEL, training_file=training_file, validation_file=validation_file, method=method
        )

    return make


def echoed(client: openai.OpenAI, job: Any) -> dict[str, Any]:
    """Return the job as it is told once more, past the client's types, which know only one form of some graders."""
    return httpx2.get(f"{client.base_url}fine_tuning/jobs/{job.id}", trust_env=False).json()


def test_a_preference_job_is_created_with_every_hyperparameter(
    client: openai.OpenAI, training_file: str, conforms: Callable[..., None]
) -> None:
    said: Any = {"batch_size": 8, "learning_rate_multiplier": 0.5, "n_epochs": 2, "beta": 0.25}
    for given, told in (
        ({"dpo": {"hyperparameters": said}}, said),
        ({"dpo": {"hyperparameters": {"beta": 2}}}, {**EVERY, "beta": 2}),
        ({"dpo": {}}, {**EVERY, "beta": "auto"}),
        ({"dpo": None}, {**EVERY, "beta": "auto"}),
        ({}, {**EVERY, "beta": "auto"}),
    ):
        method: Any = {"type": "dpo", **given}
        job = client.fine_tuning.jobs.create(model=MODEL, training_file=training_file, method=method)
        conforms(job, "FineTuningJob")
        body = job.to_dict()
        assert body["method"] == {"type": "dpo", "dpo": {"hyperparameters": told}}
        assert (body["hyperparameters"], body["status"], body["validation_file"]) == (None, "validating_files", None)
        assert client.fine_tuning.jobs.retrieve(job.id) == job


def test_a_reinforcement_job_is_created_with_every_hyperparameter(
    client: openai.OpenAI, create: Callable[..., Any], prompts: str, conforms: Callable[..., None]
) -> None:
    said: Any = {
        "batch_size": 8, "learning_rate_multiplier": 0.5, "n_epochs": 2, "compute_multiplier": 1.5, "eval_interval": 5,
        "eval_samples": 2, "reasoning_effort": "high",
    }  # fmt: skip
    for given, told in (
        ({"hyperparameters": said}, said),
        ({"hyperparameters": {"eval_samples": 256}}, {**EVERY, **SAMPLED, "eval_samples": 256}),
        ({"hyperparameters": dict.fromkeys(said)}, {**EVERY, **SAMPLED}),
        ({}, {**EVERY, **SAMPLED}),
    ):
        job = create(**given)
        conforms(job, "FineTuningJob")
        body = job.to_dict()
        assert body["method"] == {
            "type": "reinforcement",
            "reinforcement": {"grader": SAME, "response_format": None, "hyperparameters": told},
        }
        assert (body["hyperparameters"], body["status"], body["validation_file"]) == (None, "validating_files", prompts)
        assert client.fine_tuning.jobs.retrieve(job.id) == job


@pytest.mark.parametrize("effort", ["none", "minimal", "xhigh", "max"])
def test_efforts_that_only_chat_has_are_taken_too(client: openai.OpenAI, create: Callable[..., Any], effort: str) -> None:
    job = create(hyperparameters={"reasoning_effort": effort})
    assert echoed(client, job)["method"]["reinforcement"]["hyperparameters"]["reasoning_effort"] == effort


@pytest.mark.parametrize(
    ("method", "resolved"),
    [
        ("dpo", {"batch_size": 1, "learning_rate_multiplier": 1.0, "n_epochs": 3, "beta": 0.1}),
        (
            "reinforcement",
            {
                "batch_size": 4, "learning_rate_multiplier": 1.0, "n_epochs": 3, "compute_multiplier": 1.0,
                "eval_interval": 5, "eval_samples": 2, "reasoning_effort": "default",
            },
        ),
    ],
)  # fmt: skip
def test_numbers_take_the_place_of_auto(
    served: Any, client: openai.OpenAI, create: Callable[..., Any], prompts: str, method: str, resolved: Any
) -> None:
    other: Any = {"type": "dpo"}
    job = create() if method != "dpo" else client.fine_tuning.jobs.create(model=MODEL, training_file=prompts, method=other)
    with served.composed.db.begin() as tx:
        assert jobs.swap(tx, served.scope, job.id, expect_status=list(Status), status=Status.QUEUED, resolved=resolved)
    body = echoed(client, job)
    assert body["method"][method]["hyperparameters"] == resolved
    assert body["hyperparameters"] is None


@pytest.mark.parametrize(
    ("grader", "told"),
    [
        (NEAR, NEAR),
        ({**SAME, "operation": "neq"}, {**SAME, "operation": "ne"}),
        (PYTHON, PYTHON),
        (SCORE, SCORE),
        (LABEL, LABEL),
        (MULTI, MULTI),
        ({**MULTI, "graders": [SAME, NEAR]}, MULTI),
        ({**MULTI, "graders": SAME, "calculate_output": "a"}, {**MULTI, "graders": {"a": SAME}, "calculate_output": "a"}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_any_grader_can_reward_and_is_echoed_as_it_came(
    client: openai.OpenAI, create: Callable[..., Any], grader: Any, told: Any
) -> None:
    assert echoed(client, create(grader))["method"]["reinforcement"]["grader"] == told


def test_a_grader_without_a_name_is_given_one(client: openai.OpenAI, create: Callable[..., Any]) -> None:
    unnamed = {key: value for key, value in SAME.items() if key != "name"}
    job = create(unnamed)
    grader = echoed(client, job)["method"]["reinforcement"]["grader"]
    assert grader.pop("name").startswith("grader-")
    assert grader == unnamed


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}},
        {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True},
        {"type": "json_object"},
    ],
)
def test_a_form_of_answers_is_echoed_as_it_came(client: openai.OpenAI, create: Callable[..., Any], form: Any) -> None:
    job = create({**SAME, "input": "{{ sample.output_json.n }}"}, response_format=form)
    assert echoed(client, job)["method"]["reinforcement"]["response_format"] == form


@pytest.mark.parametrize(
    ("form", "param", "told"),
    [
        ({"type": "yaml"}, f"{FORM}.type", "yaml"),
        ({}, f"{FORM}.type", "Missing"),
        ({"type": "json_schema"}, FORM, "needs 'json_schema' with a 'name' and a 'schema'"),
        ({"type": "json_schema", "json_schema": {"name": "n"}}, FORM, "needs 'json_schema'"),
        ({"type": "json_schema", "schema": SCHEMA}, FORM, "needs 'json_schema'"),
        ({"type": "json_schema", "name": "a b", "schema": SCHEMA}, f"{FORM}.name", "pattern"),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {}}, "strict": True}, FORM, "'strict' beside"),
        ({"type": "json_object", "name": "n"}, FORM, "takes no 'name'"),
        ({"type": "text", "json_schema": {"name": "n", "schema": {}}}, FORM, "takes no 'json_schema'"),
        ({"type": "json_schema", "name": "n", "schema": {"not": {}}}, FORM, "cannot be kept to this schema"),
        ({"type": "json_schema", "name": "n", "schema": {"type": "horse"}}, FORM, "cannot be kept to this schema"),
        ({"type": "json_object", "colour": "red"}, f"{FORM}.colour", "Unknown"),
        ("json", FORM, "must be an object"),
    ],
    ids=str,
)
def test_a_form_that_cannot_be_kept_to_is_refused(create: Callable[..., Any], form: Any, param: str, told: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(response_format=form)
    assert caught.value.param == param
    assert told in caught.value.message


def test_a_form_that_is_nested_too_deep_is_refused(create: Callable[..., Any]) -> None:
    deep: Any = {}
    for _ in range(300):
        deep = {"items": deep}
    with pytest.raises(openai.BadRequestError) as caught:
        create(response_format={"type": "json_schema", "name": "n", "schema": deep})
    assert caught.value.param == FORM


def test_rewards_need_a_validation_file(create: Callable[..., Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(validation_file=None)
    assert (caught.value.param, caught.value.code) == ("validation_file", "missing_required_parameter")
    assert "Upload some prompts" in caught.value.message


def test_files_are_looked_at_first(create: Callable[..., Any]) -> None:
    for field in ("training_file", "validation_file"):
        with pytest.raises(openai.BadRequestError) as caught:
            create({**SCORE, "model": "none"}, **{field: "file-unknown"})
        assert (caught.value.param, caught.value.body["message"]) == (field, f"invalid {field}: file-unknown")  # type: ignore[index]


@pytest.mark.parametrize(
    ("grader", "param"),
    [
        ({**SCORE, "model": "none"}, f"{GRADER}.model"),
        ({**LABEL, "model": "plain"}, f"{GRADER}.model"),
        ({**SCORE, "model": "blind"}, f"{GRADER}.input"),
        ({**SCORE, "sampling_params": {"reasoning_effort": "max"}}, f"{GRADER}.sampling_params.reasoning_effort"),
        ({**MULTI, "graders": {"a": {**SCORE, "model": "none"}, "b": NEAR}}, f"{GRADER}.graders.a.model"),
        ({**PYTHON, "source": "def grade(sample): return 1"}, f"{GRADER}.source"),
        ({**PYTHON, "image_tag": "1999-01-01"}, f"{GRADER}.image_tag"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_grader_that_cannot_work_here_is_refused_by_its_field(create: Callable[..., Any], grader: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(grader)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("grader", "field", "path"),
    [
        ({**SAME, "reference": "{{ item.colour }}"}, "reference", "item.colour"),
        ({**NEAR, "input": "{{ item.answer.long }}"}, "input", "item.answer.long"),
        ({**NEAR, "reference": "{{ item.tags[2] }}"}, "reference", "item.tags[2]"),
        ({**SAME, "input": "{{ item.messages }}"}, "input", "item.messages"),
        ({**SCORE, "input": [ASKED[0], {"role": "user", "content": "{{ item.y }}"}]}, "input[1].content", "item.y"),
        (
            {**LABEL, "input": [{"role": "user", "content": {"type": "input_text", "text": "{{ item.y }}"}}]},
            "input[0].content.text",
            "item.y",
        ),
        (
            {**SCORE, "input": [{"role": "user", "content": ["a", {"type": "input_image", "image_url": "{{ item.y }}"}]}]},
            "input[0].content[1].image_url",
            "item.y",
        ),
        (
            {**MULTI, "graders": {"a": SAME, "b": {**NEAR, "reference": "{{ item.y }}"}}},
            "graders.b.reference",
            "item.y",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_column_that_rows_lack_is_told_with_the_row(
    create: Callable[..., Any], prompts: str, grader: Any, field: str, path: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(grader)
    assert caught.value.param == f"{GRADER}.{field}"
    assert caught.value.body["message"] == (  # type: ignore[index]
        f"'{GRADER}.{field}' asks for {{{{ {path} }}}}, and line 1 of the training file {prompts} has no {path}: it has "
        "item.x, item.url, item.sound, item.tags, item.answer. Give every row that column, or ask for one that every row "
        "has."
    )


def test_the_first_rows_of_both_files_are_looked_at(client: openai.OpenAI, create: Callable[..., Any]) -> None:
    bare = {"messages": ROW["messages"]}
    grader = {**SAME, "reference": "{{ item.x }}"}
    for field in ("training_file", "validation_file"):
        words = field.replace("_", " ")
        for rows, line in (([ROW, ROW, bare], 3), ([bare], 1), ([*[ROW] * 4, bare], 5)):
            file = upload(client, *rows)
            with pytest.raises(openai.BadRequestError) as caught:
                create(grader, **{field: file})
            assert f"line {line} of the {words} {file} has no item.x: it has nothing beside" in caught.value.message
    # later rows, and what is no row of prompts at all, are for the validation
    create(grader, training_file=upload(client, *[ROW] * 5, bare))
    create(grader, validation_file=upload(client, {"input": {}, "preferred_output": []}))


@pytest.mark.parametrize(
    ("text", "block", "told"),
    [
        ("{{ sample.output_json.n }}", {}, FORM),
        ("{{ sample.output_json }}", {"response_format": {"type": "text"}}, "{{ sample.output_text }}"),
        ("{{ sample.output_audio.data }}", {}, "{{ sample.output_text }}"),
    ],
)
def test_what_no_answer_will_have_is_refused(create: Callable[..., Any], text: str, block: Any, told: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create({**SAME, "input": text}, **block)
    assert caught.value.param == f"{GRADER}.input"
    assert told in caught.value.message


def test_a_create_that_is_sent_again_under_its_key_makes_one_job(client: openai.OpenAI, prompts: str) -> None:
    method: Any = {"type": "reinforcement", "reinforcement": {"grader": SAME}}
    made = [
        client.fine_tuning.jobs.create(
            model=MODEL, training_file=prompts, validation_file=prompts, method=method,
            extra_headers={"Idempotency-Key": "once"},
        )
        for _ in range(2)
    ]  # fmt: skip
    assert made[0] == made[1]


def test_what_waits_is_listed_paused_and_cancelled_like_any_other(client: openai.OpenAI, create: Callable[..., Any]) -> None:
    job = create()
    assert job.id in [listed.id for listed in client.fine_tuning.jobs.list(limit=1).data]
    assert client.fine_tuning.jobs.pause(job.id).status == "paused"
    assert client.fine_tuning.jobs.resume(job.id).status == "validating_files"
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"


def test_a_file_whose_bytes_are_gone_is_for_the_job_to_tell(
    served: Any, client: openai.OpenAI, create: Callable[..., Any]
) -> None:
    file = upload(client, ROW)
    Path(served.composed.folder.path, "blobs", "files", file).unlink()
    assert create({**SAME, "reference": "{{ item.y }}"}, training_file=file, validation_file=file).status
