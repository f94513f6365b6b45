"""Judges that fail, by their flags; judges that cannot what they are asked for, by the field; and `cosine`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from far import FarModel, FarServer, hangs, says, sends, status
from far.judging import COSINE, FLAG, LABEL, MODELS, ROOT, SCORE, USAGE, flags, run
from tunesmith.domain.job import CreateJob
from tunesmith.domain.model import TunedModel
from tunesmith.domain.scope import Everywhere
from tunesmith.store import models


@pytest.fixture(scope="module")
def served(judging: Any) -> Any:
    return judging


@pytest.mark.parametrize(
    ("acts", "flag", "told", "n_asked"),
    [
        ([status(500, "the GPU is on fire")] * 9, FLAG, "answers 500: the GPU is on fire", 4),
        ([status(429, "slow down")] * 9, FLAG, "answers 429: slow down", 4),
        ([status(429, "slow down", retry_after="3600")] * 9, FLAG, "answers 429: slow down", 1),
        ([status(429, "you are broke", x_should_retry="false")] * 9, FLAG, "answers 429: you are broke", 1),
        ([status(400, "no such field")], FLAG, "answers 400: no such field", 1),
        ([sends({"error": "bad"}, 400)], FLAG, "answers 400: bad", 1),
        ([sends({"detail": "worse"}, 422)], FLAG, "answers 422: worse", 1),
        ([sends(b"<html>\n gone", 404)], FLAG, "answers 404: <html> gone", 1),
        ([sends({}), sends({"choices": []})], FLAG, "what is no chat completion", 1),
        ([sends({"choices": [7]})], FLAG, "what is no chat completion", 1),
        ([sends(b"[" * 100_000)] * 9, FLAG, "answers what is no JSON object", 4),
        ([says(None, refusal="I will not judge that.")], "model_grader_refusal_error", "refused: I will not judge that.", 1),
        ([says("", end="content_filter")], "model_grader_refusal_error", "refused (content_filter)", 1),
        ([status(400, "filtered", "content_filter")], "model_grader_refusal_error", "answers 400: filtered", 1),
        ([says('{"steps": [{"desc', end="length")], "model_grader_exceeded_max_tokens_error", 'after 7 tokens: {"steps"', 1),
        ([says("I give it an 8.")], "model_grader_parse_error", "did not answer with a result: I give it an 8.", 1),
        ([says(None)], "model_grader_parse_error", "did not answer with a result", 1),
        ([says('{"steps": []}')], "model_grader_parse_error", "did not answer with a result", 1),
        ([says('{"steps": [], "result": NaN}')], "model_grader_parse_error", "gave no number: nan", 1),
        ([says('{"steps": [], "result": "0.5"}')], "model_grader_parse_error", "gave no number: '0.5'", 1),
        ([says('{"steps": [], "result": true}')], "model_grader_parse_error", "gave no number: True", 1),
    ],
)
def test_a_judge_that_fails_is_told_by_its_flag(
    client: openai.OpenAI,
    far: FarServer,
    conforms: Callable[..., None],
    acts: Any,
    flag: str,
    told: str,
    n_asked: int,
) -> None:
    far.acts.extend(acts)
    answer = run(client, SCORE)
    conforms(answer, "RunGraderResponse")
    [(set_flag, details)] = flags(answer).items()
    assert (answer["reward"], set_flag) == (0.0, flag)
    assert details is not None
    assert told in details
    assert len(far.judged()) == n_asked
    answered = flag != FLAG and "answers" not in told
    assert answer["metadata"]["token_usage"] == (USAGE if answered else None)


def test_a_label_that_is_none_is_a_parse_error(client: openai.OpenAI, far: FarServer) -> None:
    far.label = "middling"
    assert flags(run(client, LABEL)) == {"model_grader_parse_error": "judge gave none of the labels: 'middling'"}


def test_a_judge_that_says_nothing_is_given_up_after_a_time(open_house: Any, tmp_path: Path, far: FarServer) -> None:
    with (
        open_house(tmp_path / "data", judge_timeout_s=0.5) as served,
        openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client,
    ):
        httpx2.post(f"{served.root}{MODELS}", json={"name": "judge", "upstream": {"url": far.url}}, trust_env=False)
        far.acts.append(hangs)
        assert flags(run(client, SCORE)) == {FLAG: f"{far.url} gave no answer within 0.5 s."}
        far.acts.extend([status(500, "oh", retry_after="0.01"), hangs])
        [details] = flags(run(client, SCORE)).values()
        assert details == f"{far.url} gave no answer within 0.5 s. Before that: {far.url} answers 500: oh"


IMAGE: Any = [{"role": "user", "content": {"type": "input_image", "image_url": "https://example.com/a.png"}}]
AUDIO: Any = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}]}]


@pytest.mark.parametrize(
    ("grader", "param", "code", "told"),
    [
        (
            {**SCORE, "model": "gpt-9"},
            "model",
            None,
            "Judges here: tunesmith-nano, judge, blind, older; `tunesmith models add NAME --upstream",
        ),
        ({**LABEL, "model": "ft:gpt-9:a::b"}, "model", None, "does not exist"),
        ({**LABEL, "model": "judge\x00"}, "model", None, "does not exist"),
        ({**SCORE, "model": "plain"}, "model", None, "structured output"),
        ({**LABEL, "model": "vectors"}, "model", None, "chat completions"),
        (
            {**SCORE, "model": "tunesmith-nano", "input": IMAGE},
            "input",
            "not_available",
            "an image for those",
        ),
        (
            {**SCORE, "model": "tunesmith-nano", "input": AUDIO},
            "input",
            "not_available",
            "audio for those",
        ),
        (
            {**SCORE, "model": "tunesmith-nano", "sampling_params": {"reasoning_effort": "low"}},
            "sampling_params.reasoning_effort",
            None,
            "has no such mode",
        ),
        ({**SCORE, "model": "blind", "input": IMAGE}, "input", None, "images"),
        ({**LABEL, "model": "blind", "input": AUDIO}, "input", None, "audio"),
        ({**SCORE, "sampling_params": {"reasoning_effort": "max"}}, "sampling_params.reasoning_effort", None, "low, high"),
        (
            {**SCORE, "model": "blind", "sampling_params": {"reasoning_effort": "low"}},
            "sampling_params.reasoning_effort",
            None,
            "it takes: none at all",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["validate", "run"])
@pytest.mark.parametrize("inside", [False, True])
def test_what_a_judge_cannot_do_is_refused_by_the_field_that_asks_for_it(
    http: httpx2.Client, far: FarServer, grader: Any, param: str, code: str | None, told: str, verb: str, inside: bool
) -> None:
    path = "grader"
    if inside:
        grader = {"type": "multi", "name": "m", "graders": {"a": grader}, "calculate_output": "a"}
        path = "grader.graders.a"
    answer = http.post(f"{ROOT}/{verb}", json={"grader": grader} | ({"model_sample": "x"} if verb == "run" else {}))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, f"{path}.{param}", code)
    assert told in error["message"]
    assert far.asked == []


def test_a_tuned_model_judges_for_its_own_project(
    http: httpx2.Client, client: openai.OpenAI, served: Any, training_file: str
) -> None:
    job = served.composed.services.jobs.create(served.scope, CreateJob(model="tunesmith-nano", training_file=training_file))
    own = TunedModel("ft:nano:t::ours", job.project_id, job.organization_id, job.id, job.base, 1.0, "jobs/k", "0" * 64, {})
    theirs = replace(own, name="ft:nano:t::theirs", project_id="proj_other", organization_id="org-other")
    with served.composed.db.begin() as tx:
        for model in (own, theirs):
            models.add(tx, Everywhere("the test lays out what jobs made"), model)
    body = {"grader": {**SCORE, "model": theirs.name}, "model_sample": "x"}
    error = http.post(f"{ROOT}/run", json=body).json()["error"]
    assert (error["param"], "does not exist" in error["message"]) == ("grader.model", True)
    # its row is there, its weights are not: the grader is in order, and grading with it fails
    body = {"grader": {**SCORE, "model": own.name}, "model_sample": "x", "item": {"answer": "x"}}
    answer = http.post(f"{ROOT}/run", json=body).json()
    assert answer["metadata"]["errors"]["model_grader_server_error"] is True
    assert f"{own.name} cannot answer. The model could not be served" in str(answer["metadata"]["errors"])
    client.fine_tuning.jobs.cancel(job.id)


def test_a_judge_that_left_meanwhile_is_told(client: openai.OpenAI, far: FarServer, http: httpx2.Client) -> None:
    far.models["brief"] = FarModel()
    assert http.post(MODELS, json={"name": "brief", "upstream": {"url": far.url}}).status_code == 200
    del far.models["brief"]
    answer = run(client, {**SCORE, "model": "brief"})
    assert flags(answer) == {FLAG: f"{far.url} answers 404: The model brief does not exist"}
    assert http.delete(f"{MODELS}/brief").status_code == 200


def test_cosine_is_of_the_only_embedding_model(client: openai.OpenAI, far: FarServer, conforms: Callable[..., None]) -> None:
    far.vectors = {"up": [0.0, 2.0], "right": [3.0, 0.0], "left": [-1.0, 0.0], "both": [1.0, 1.0], "nought": [0.0, 0.0]}
    client.fine_tuning.alpha.graders.validate(grader=COSINE)
    for sample, answer, reward in (
        ("up", "right", 0.0),
        ("up", "up", 1.0),
        ("right", "left", 0.0),
        ("both", "up", 0.5**0.5),
        ("", "up", 0.0),
    ):
        told = run(client, COSINE, sample, {"answer": answer})
        conforms(told, "RunGraderResponse")
        assert (told["reward"], flags(told)) == (pytest.approx(reward), {}), (sample, answer)
    asked = [each["body"] for each in far.asked]
    assert asked[0] == {"model": "vectors", "input": ["up", "right"]}
    assert len(asked) == 4
    told = run(client, COSINE, "nought", {"answer": "up"})
    assert flags(told) == {FLAG: "vectors answered what are no two embeddings"}
    far.acts.extend([sends({"data": [{"index": 0, "embedding": [1.0]}]}), status(400, "too long")])
    assert flags(run(client, COSINE, "a", {"answer": "b"})) == {FLAG: "vectors answered what are no two embeddings"}
    assert flags(run(client, COSINE, "a", {"answer": "b"})) == {FLAG: f"{far.url} answers 400: too long"}


def test_of_several_embedding_models_cosine_is_of_the_one_that_is_called_so(
    client: openai.OpenAI, far: FarServer, http: httpx2.Client
) -> None:
    far.models["others"] = FarModel(embeddings=True)
    http.post(MODELS, json={"name": "others", "upstream": {"url": far.url}})
    refused = http.post(f"{ROOT}/validate", json={"grader": COSINE})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, "grader.evaluation_metric")
    assert "here are vectors, others: `tunesmith models add vectors --alias text-embedding-3-large`" in error["message"]
    assert http.post(MODELS, json={"name": "others", "aliases": ["text-embedding-3-large"]}).status_code == 200
    far.asked.clear()
    assert flags(run(client, COSINE, "a")) == {}
    assert [each["body"]["model"] for each in far.asked] == ["others"]
    assert http.delete(f"{MODELS}/others").status_code == 200
    del far.models["others"]
