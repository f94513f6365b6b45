"""Models of this server as judges: the embedded base, asked by graders over the wire and answered by a real sampler."""

from collections.abc import Callable
from typing import Any

import openai
import pytest

from far.judging import LABEL, SCORE, flags, run

NANO: dict[str, Any] = {"model": "tunesmith-nano"}


def test_a_base_gives_a_score(client: openai.OpenAI, conforms: Callable[..., None]) -> None:
    params = {"seed": 2**70, "temperature": 1.5, "top_p": 0.9}
    grader = {**SCORE, **NANO, "range": [2, 5], "sampling_params": params}
    client.fine_tuning.alpha.graders.validate(grader=grader)
    answer = run(client, grader)
    conforms(answer, "RunGraderResponse")
    assert flags(answer) == {}
    assert 2 <= answer["reward"] <= 5
    assert answer["metadata"]["sampled_model_name"] == "tunesmith-nano"
    [usage] = answer["model_grader_token_usage_per_model"].values()
    assert usage["prompt_tokens"] > 20
    assert usage["completion_tokens"] > 5
    assert run(client, grader)["reward"] == answer["reward"]  # the seed


@pytest.mark.parametrize("passing", [["good"], ["good", "bad"]])
def test_a_base_chooses_among_the_labels(client: openai.OpenAI, passing: list[str]) -> None:
    answer = run(client, {**LABEL, **NANO, "passing_labels": passing})
    assert flags(answer) == {}
    assert answer["reward"] in ({1.0} if len(passing) == 2 else {0.0, 1.0})


def test_an_answer_that_is_cut_off_is_a_flag(client: openai.OpenAI) -> None:
    answer = run(client, {**SCORE, **NANO, "sampling_params": {"max_completions_tokens": 2}})
    assert list(flags(answer)) == ["model_grader_exceeded_max_tokens_error"]
    assert answer["metadata"]["token_usage"]["completion_tokens"] == 2


def test_a_question_that_does_not_fit_is_a_flag(client: openai.OpenAI) -> None:
    long: Any = [{"role": "user", "content": "a parcel is late " * 4000}]
    [(flag, details)] = flags(run(client, {**SCORE, **NANO, "input": long})).items()
    assert flag == "model_grader_server_error"
    assert "maximum context length" in details
