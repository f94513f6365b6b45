"""Chat through models upstream: what becomes of every failure, and of clients that leave."""

import json
import threading
import time
from typing import Any

import openai
import pytest

from far import (
    FarServer,
    cuts,
    hangs,
    resets,
    said,
    sends,
    status,
    streams,
)
from far.passing import FORM, SECRET, ask, refused


@pytest.mark.parametrize(
    ("model", "wishes", "param", "told"),
    [
        ("my-plain", {"response_format": FORM}, "response_format", "my-plain (plain of http"),
        ("my-thinks", {"reasoning_effort": "max"}, "reasoning_effort", "it takes: low, high"),
        ("my-vectors", {}, "model", "was found not to know chat completions"),
    ],
)
def test_what_a_model_was_found_not_to_do_is_refused(
    chat: openai.OpenAI, other: FarServer, model: str, wishes: Any, param: str, told: str
) -> None:
    error = refused(chat, openai.BadRequestError, model=model, **wishes)
    assert (error.param, told in error.message, other.asked) == (param, True, [])
    assert f"`tunesmith models add {model} --upstream" in error.message


@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_of_the_request_is_told_in_the_others_words(chat: openai.OpenAI, other: FarServer, stream: bool) -> None:
    body = {"error": {"message": f"Too long, {SECRET}", "type": "x", "param": "messages", "code": "context_length_exceeded"}}
    other.acts.append(sends(body, 400))
    error = refused(chat, openai.BadRequestError, stream=stream)
    assert error.body == {
        "message": "Too long, [key]", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"
    }  # fmt: skip
    assert len(other.asked) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("number", [401, 403])
def test_a_refused_key_is_no_fault_of_the_client(chat: openai.OpenAI, other: FarServer, stream: bool, number: int) -> None:
    other.acts.append(status(number, "Incorrect API key provided: sk-far-7d0c***1e2"))
    error = refused(chat, openai.InternalServerError, stream=stream)
    assert (error.status_code, "my-m refuses the key" in error.message, "sk-" in error.message) == (502, True, False)


def test_a_busy_server_says_when_to_come_again(chat: openai.OpenAI, other: FarServer) -> None:
    other.acts.append(status(429, "Slow down", retry_after="7"))
    error = refused(chat, openai.RateLimitError)
    assert (error.response.headers["retry-after"], error.code) == ("7", "rate_limit_exceeded")
    assert "The server of my-m is busy: Slow down" in error.message
    other.acts.append(lambda answer: answer.error(429, "Slow down"))
    assert "retry-after" not in refused(chat, openai.RateLimitError).response.headers
    assert len(other.asked) == 2


def test_one_that_comes_back_is_waited_for_until_the_first_token(chat: openai.OpenAI, other: FarServer) -> None:
    other.acts.extend([status(503), resets, cuts])
    assert ask(chat).choices[0].message.content == "yes"
    assert len(other.asked) == 4


@pytest.mark.parametrize(
    ("acts", "number", "told"),
    [
        ([status(503, "loading")] * 4, 503, "my-m gives no answer: http"),
        ([resets] * 4, 503, "cannot be asked"),
        ([hangs], 503, "gave no answer within 2 s"),
        ([status(404, "no such model")], 502, "does not know the model any more"),
        ([streams(done=True)] * 4, 503, "before it says anything"),
        ([streams({"error": {"message": "out of memory", "code": 500}})] * 4, 503, "answers 500: out of memory"),
        ([streams({"error": {"message": "bad", "code": 400, "param": "seed"}})], 400, "bad"),
        ([streams("no JSON")] * 4, 503, "no JSON object"),
        ([streams({"choices": [{"index": 1, "delta": {"content": "x"}}]})], 502, "no chunk"),
        ([streams({"choices": "x"})], 502, "no chunk"),
        ([streams({"choices": []})], 502, "in the middle"),
    ],
)
def test_no_failure_is_silent(chat: openai.OpenAI, other: FarServer, acts: Any, number: int, told: str) -> None:
    for stream in (False, True):
        other.acts.extend(acts)
        error = refused(chat, openai.APIStatusError, stream=stream)
        assert (error.status_code, told in error.message) == (number, True), error.message
        assert not other.acts


def breaks(answer: Any) -> None:
    """Promise more of a chunked answer than comes."""
    answer.send_response(200)
    answer.send_header("content-type", "text/event-stream")
    answer.send_header("transfer-encoding", "chunked")
    answer.end_headers()
    answer.close_connection = True
    for chunk in said("One two", end=None):
        event = f"data: {json.dumps(chunk)}\n\n".encode()
        answer.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")


def falls_silent(answer: Any) -> None:
    answer.begin_stream()
    for chunk in said("One two", end=None):
        answer.event(chunk)
    answer.server.released.wait(10)


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (breaks, "cannot be asked"),
        (falls_silent, "fell silent for 2 s"),
        (streams(*said("One two", end=None)), "in the middle"),
        (streams(*said("One two", end=None), {"error": {"message": "out of memory"}}), "out of memory"),
    ],
)
def test_one_that_dies_in_the_middle_is_an_error_after_what_came(
    chat: openai.OpenAI, other: FarServer, act: Any, told: str
) -> None:
    other.acts.append(act)
    chunks = ask(chat, stream=True)
    assert "".join(next(chunks).choices[0].delta.content for _ in range(3)) == "One two"
    with pytest.raises(openai.APIError, match=told):
        next(chunks)
    assert len(other.asked) == 1
    other.acts.append(act)
    assert told in refused(chat, openai.InternalServerError).message


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_the_others_work(chat: openai.OpenAI, other: FarServer, stream: bool) -> None:
    left = threading.Event()

    def goes_on(answer: Any) -> None:
        answer.begin_stream()
        try:
            for _ in range(1000):
                answer.event(said("on and", end=None)[1])
                time.sleep(0.02)
        except OSError:
            left.set()

    other.acts.append(goes_on)
    if stream:
        with ask(chat, stream=True) as answer:
            assert next(iter(answer)).choices[0].delta.role == "assistant"
    else:
        with pytest.raises(openai.APITimeoutError):
            ask(chat, timeout=0.5)
    assert left.wait(5)


def test_the_first_words_are_sent_before_the_last_are_said(chat: openai.OpenAI, other: FarServer) -> None:
    go_on = threading.Event()

    def waits(answer: Any) -> None:
        first, *rest = said("One two")[1:]
        answer.begin_stream()
        answer.event(first)
        go_on.wait(20)
        for chunk in rest:
            answer.event(chunk)

    other.acts.append(waits)
    words: list[str] = []
    for chunk in ask(chat, stream=True):
        words.append(chunk.choices[0].delta.content or "")
        if "One" in words:
            go_on.set()
    assert "".join(words) == "One two"


def test_a_key_that_is_gone_is_told_without_asking(
    chat: openai.OpenAI, other: FarServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAR_KEY")
    error = refused(chat, openai.InternalServerError)
    assert (error.status_code, "FAR_KEY of the server's environment" in error.message, other.asked) == (503, True, [])


def test_models_that_answer_are_listed(chat: openai.OpenAI) -> None:
    names = {model.id for model in chat.models.list()}
    assert {"my-m", "my-plain", "my-vectors"} <= names
