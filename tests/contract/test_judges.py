"""Graders that ask a model, over the wire: what judges upstream are asked, and what becomes of what they say."""

import base64
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from far import FarServer, cuts, resets, sends, status
from far.judging import COSINE, LABEL, MODELS, SCORE, USAGE, Gallery, flags, run
from tunesmith.services.abilities import red_png


@pytest.fixture(scope="module")
def served(judging: Any) -> Any:
    return judging


def test_a_judge_s_number_is_the_reward(client: openai.OpenAI, far: FarServer, conforms: Callable[..., None]) -> None:
    client.fine_tuning.alpha.graders.validate(grader=SCORE)
    assert far.asked == []
    answer = run(client, SCORE)
    conforms(answer, "RunGraderResponse")
    assert (answer["reward"], flags(answer)) == (0.75, {})
    assert answer["metadata"]["token_usage"] == USAGE
    assert answer["metadata"]["sampled_model_name"] == "judge-2026-01-01"
    assert answer["model_grader_token_usage_per_model"] == {"judge-2026-01-01": USAGE}
    [asked] = far.judged()
    assert asked["model"] == "judge"
    assert asked["messages"] == [
        {"role": "developer", "content": "Grade the answer."},
        {"role": "user", "content": [{"type": "text", "text": "Expected: 42"}, {"type": "text", "text": "42"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "I see."}]},
    ]
    schema = asked["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["properties"]["result"] == {"type": "number"}
    assert set(asked) == {"model", "messages", "response_format"}


@pytest.mark.parametrize(
    ("span", "result", "reward"),
    [
        (None, 7, 1.0),
        (None, -1, 0.0),
        ([1, 10], 7, 7.0),
        ([1, 10], 70, 10.0),
        ([-5, -1], 0, -1.0),
        ([0, 1], 1e308, 1.0),
        pytest.param(None, 10**400, 1.0, id="an integer of 400 digits"),
    ],
)
def test_a_number_is_kept_within_the_range(
    client: openai.OpenAI, far: FarServer, span: Any, result: float, reward: float
) -> None:
    far.result = result
    assert run(client, SCORE | ({"range": span} if span else {}))["reward"] == reward


def test_how_a_judge_is_sampled_is_passed_on(client: openai.OpenAI, far: FarServer) -> None:
    params = {"seed": 3, "temperature": 0.5, "top_p": 0.9, "max_completions_tokens": 99, "reasoning_effort": "low"}
    assert flags(run(client, {**SCORE, "sampling_params": params})) == {}
    assert (
        flags(run(client, {**SCORE, "model": "older", "sampling_params": {"max_completions_tokens": 9, "seed": None}})) == {}
    )
    first, second = far.judged()
    wanted = {"seed": 3, "temperature": 0.5, "top_p": 0.9, "max_completion_tokens": 99, "reasoning_effort": "low"}
    assert {name: first[name] for name in wanted} == wanted
    assert set(second) == {"model", "messages", "response_format", "max_tokens"}


@pytest.mark.parametrize(("label", "reward"), [("good", 1.0), ("bad", 0.0)])
def test_a_label_that_passes_is_1(
    client: openai.OpenAI, far: FarServer, conforms: Callable[..., None], label: str, reward: float
) -> None:
    far.label = label
    client.fine_tuning.alpha.graders.validate(grader=LABEL)
    answer = run(client, LABEL)
    conforms(answer, "RunGraderResponse")
    assert (answer["reward"], flags(answer), answer["metadata"]["token_usage"]) == (reward, {}, USAGE)
    result = far.judged()[0]["response_format"]["json_schema"]["schema"]["properties"]["result"]
    assert result == {"type": "string", "enum": ["good", "bad"]}


def test_multi_asks_all_of_its_judges_and_adds_up_what_they_took(client: openai.OpenAI, far: FarServer) -> None:
    far.vectors = {"41": [1.0, 0.0], "42": [0.6, 0.8]}
    graders = {"score": SCORE, "label": {**LABEL, "model": "blind"}, "again": SCORE, "near": COSINE}
    multi: Any = {"type": "multi", "name": "all", "graders": graders, "calculate_output": "score + again + label + near"}
    client.fine_tuning.alpha.graders.validate(grader=multi)
    answer = run(client, multi, "41")
    assert answer["reward"] == pytest.approx(0.75 + 0.75 + 1 + 0.6)
    assert answer["sub_rewards"] == {"score": 0.75, "again": 0.75, "label": 1.0, "near": pytest.approx(0.6)}
    per_model = answer["model_grader_token_usage_per_model"]
    assert per_model == {"judge-2026-01-01": {key: 2 * n for key, n in USAGE.items()}, "blind-2026-01-01": USAGE}
    assert answer["metadata"]["token_usage"] == {key: 3 * n for key, n in USAGE.items()}


@pytest.mark.parametrize(
    ("acts", "n_asked"),
    [
        ([status(429)], 2),
        ([status(500), status(503)], 3),
        ([status(408), status(409), status(425)], 4),
        ([cuts], 2),
        ([resets], 2),
        ([sends(b"<html>")], 2),
        ([sends([])], 2),
        ([status(429, retry_after="Thu, 01 Jan 1970 00:00:00 GMT")], 2),
    ],
)
def test_a_judge_that_is_busy_is_asked_again(client: openai.OpenAI, far: FarServer, acts: Any, n_asked: int) -> None:
    far.acts.extend(acts)
    answer = run(client, SCORE)
    assert (answer["reward"], flags(answer)) == (0.75, {})
    assert len(far.judged()) == n_asked


def test_no_more_than_a_few_are_asked_at_once(open_house: Any, tmp_path: Path, far: FarServer) -> None:
    with (
        open_house(tmp_path / "data", judge_requests=3) as served,
        openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client,
    ):
        httpx2.post(f"{served.root}{MODELS}", json={"name": "judge", "upstream": {"url": far.url}}, trust_env=False)
        far.n_most = 0
        far.gate.clear()
        multi: Any = {
            "type": "multi",
            "name": "many",
            "graders": {f"g{n}": SCORE for n in range(12)},
            "calculate_output": "+".join(f"g{n}" for n in range(12)),
        }
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.append(run(client, multi)))
        asking.start()
        while far.n_now < 3:
            assert asking.is_alive()
            threading.Event().wait(0.005)
        far.gate.set()
        asking.join()
        assert answers[0]["reward"] == 9.0
        assert far.n_most == 3


def test_pictures_are_fetched_and_handed_on(client: openai.OpenAI, far: FarServer, gallery: Gallery) -> None:
    inline = f"data:image/png;base64,{base64.b64encode(red_png()).decode()}"
    sound = {"data": "{{ item.sound }}", "format": "wav"}
    content = [
        "Look:",
        {"type": "input_image", "image_url": "http://{{ item.host }}/red.png", "detail": "low"},
        {"type": "input_image", "image_url": "{{ item.inline }}"},
        {"type": "input_audio", "input_audio": sound},
    ]
    grader = {**SCORE, "input": [{"role": "user", "content": content}]}
    client.fine_tuning.alpha.graders.validate(grader=grader)
    answer = run(client, grader, item={"host": gallery.host, "inline": inline, "sound": "UklGRg=="})
    assert (answer["reward"], flags(answer)) == (0.75, {})
    assert far.judged()[0]["messages"][0]["content"] == [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": inline, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": inline, "detail": "auto"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    ]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1/red.png", "is not on the public internet"),
        ("http://169.254.169.254/latest/meta-data", "is not on the public internet"),
        ("http://[::ffff:127.0.0.1]/red.png", "is not on the public internet"),
        ("http://localhost:1/red.png", "is fetched from port 80, not 1"),
        ("file:///etc/passwd", "is fetched by an http or https URL"),
        ("http://{host}/page.html", "by its first bytes"),
        ("data:image/png;base64,UklGRg==", "by its first bytes"),
        ("red.png", "is fetched by an http or https URL"),
    ],
)
def test_a_picture_that_is_not_fetched_is_an_error_of_the_grade(
    client: openai.OpenAI, far: FarServer, gallery: Gallery, url: str, told: str
) -> None:
    image = {"type": "input_image", "image_url": "{{ item.url }}"}
    grader = {**SCORE, "input": [{"role": "user", "content": image}]}
    answer = run(client, grader, item={"url": url.replace("{host}", gallery.host)})
    [(flag, details)] = flags(answer).items()
    assert (answer["reward"], flag) == (0.0, "other_error")
    assert told in str(details)
    assert far.judged() == []


def test_half_a_surrogate_pair_reaches_the_judge_as_json_has_it(client: openai.OpenAI, far: FarServer) -> None:
    grader = {**SCORE, "input": [{"role": "user", "content": "{{ sample.output_json }}"}]}
    assert flags(run(client, grader, json.dumps("\ud800"))) == {}
    assert far.judged()[0]["messages"][0]["content"] == "\ud800"
