"""Bare completions of models upstream: what their server is asked, and what becomes of its answer or its failure."""

from typing import Any

import openai
import pytest

from far import USAGE, FarServer, cuts, status, streams
from far.passing import SECRET


def ask(client: openai.OpenAI, **wishes: Any) -> Any:
    return client.completions.create(**{"model": "my-m", "prompt": "Hello", **wishes})


def chunk(text: str, end: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "text": text, "finish_reason": end, **more}]}


def test_what_is_set_is_asked_and_nothing_else(chat: openai.OpenAI, other: FarServer, conforms: Any) -> None:
    other.acts.append(streams(chunk("yes"), chunk("", "eos"), {"choices": [], "usage": USAGE}))
    answer = ask(chat)
    conforms(answer, "CreateCompletionResponse")
    assert (answer.choices[0].text, answer.choices[0].finish_reason, answer.model) == ("yes", "stop", "my-m")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 7)
    (asked,) = other.asked
    told = {"stream": True, "stream_options": {"include_usage": True}}
    assert (asked["path"], asked["authorization"]) == ("/v1/completions", f"Bearer {SECRET}")
    assert asked["body"] == {"model": "m", "prompt": "Hello", "max_tokens": 16, **told}
    other.acts.append(streams(*(chunk(str(index), "length", index) for index in range(4))))
    wishes = {
        "prompt": [[1, 2], [3]], "n": 2, "max_tokens": 3, "temperature": 0.5, "top_p": 0.9, "stop": ["x"], "seed": 5,
        "presence_penalty": 1, "frequency_penalty": -1, "logit_bias": {"7": 2}, "logprobs": 0, "echo": True,
    }  # fmt: skip
    answer = ask(chat, **wishes, user="me")
    assert [choice.text for choice in answer.choices] == ["0", "1", "2", "3"]
    assert other.asked[-1]["body"] == {**wishes, "model": "m", **told}


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_is_told_for_what_it_is(chat: openai.OpenAI, other: FarServer, stream: bool) -> None:
    for act, code, words in (
        (status(404, "no such path"), 502, "does not do this"),
        (status(400, "prompt is too long", param="prompt"), 400, "prompt is too long"),
        (streams(chunk("half"), done=False), 502, "in the middle"),
        (streams({"choices": [{"index": 3, "text": "?"}]}), 502, "no chunk of a completion"),
        (streams(chunk("a", "stop", logprobs={"tokens": ["a", "b"], "token_logprobs": [-1.0]})), 502, "no chunk"),
    ):
        other.acts.append(act)
        with pytest.raises(openai.APIError) as caught:
            list(ask(chat, stream=stream))
        assert words in caught.value.message
        assert getattr(caught.value, "status_code", code) == code
    other.acts.append(cuts)
    other.acts.append(streams(chunk("again", "stop")))
    assert ask(chat).choices[0].text == "again"


def test_the_best_of_more_is_refused_by_name(chat: openai.OpenAI, other: FarServer) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(chat, n=2, best_of=3)
    assert (caught.value.code, caught.value.param, other.asked) == ("not_available", "best_of", [])
