"""Bare completions as the official client sees them, over the embedded base, a tuned model on it, and a real sampler."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from tokenizers import Tokenizer

from near import NANO, TUNED, lay_out

PROMPT = "The answer is"


@pytest.fixture(scope="module")
def served(open_house: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_house(tmp_path_factory.mktemp("house")) as served:
        lay_out(served)
        yield served


@pytest.fixture(scope="module")
def tokenizer(served: Any) -> Tokenizer:
    return Tokenizer.from_file(str(Path(served.composed.services.bases.find(NANO).path) / "tokenizer.json"))


def ask(client: openai.OpenAI, prompt: Any = PROMPT, **wishes: Any) -> Any:
    return client.completions.create(**{"model": NANO, "prompt": prompt, "temperature": 0, **wishes})


def text(answer: Any) -> str:
    return answer.choices[0].text


def test_a_text_goes_on(client: openai.OpenAI, conforms: Callable[..., None], tokenizer: Tokenizer) -> None:
    answer = ask(client, logprobs=2)
    conforms(answer, "CreateCompletionResponse")
    (choice,) = answer.choices
    assert (answer.object, answer.model, choice.index) == ("text_completion", NANO, 0)
    assert answer.id.startswith("cmpl-")
    assert choice.finish_reason in {"length", "stop"}
    assert answer.usage.prompt_tokens == len(tokenizer.encode(PROMPT).ids), "no template"
    assert answer.usage.completion_tokens == (16 if choice.finish_reason == "length" else len(choice.logprobs.tokens))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert text(ask(client, model=TUNED)) != choice.text
    assert ask(client).choices[0].logprobs is None
    assert answer.system_fingerprint == ask(client).system_fingerprint != ask(client, model=TUNED).system_fingerprint


def test_every_form_of_prompt_is_the_same_prompt(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(PROMPT).ids
    expected = text(ask(client))
    assert expected
    for prompt in ([PROMPT], ids, [ids]):
        assert text(ask(client, prompt)) == expected
    several = ask(client, [PROMPT, "2 + 3", PROMPT], n=2, temperature=1, seed=5)
    assert [choice.index for choice in several.choices] == list(range(6))
    texts = [choice.text for choice in several.choices]
    assert texts[:2] == texts[4:] != texts[2:4]
    assert several.usage.prompt_tokens == 2 * len(ids) + len(tokenizer.encode("2 + 3").ids)
    many = ask(client, [ids] * 40, max_tokens=2)
    assert len({choice.text for choice in many.choices}) == 1
    assert len(many.choices) == 40
    begun = text(ask(client, "", max_tokens=8))
    assert begun == text(ask(client, [2], max_tokens=8)), "an empty text is the begin of a document"
    assert ask(client, None, max_tokens=1).usage.prompt_tokens == 1


def test_a_text_is_scored_without_going_on(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    whole = "The answer is 5. Größe: 3 €"
    answer = ask(client, whole, max_tokens=0, echo=True, logprobs=3)
    (choice,) = answer.choices
    ids = tokenizer.encode(whole).ids
    assert (choice.text, choice.finish_reason) == (whole, "length")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(ids), 0)
    told = choice.logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset) == len(ids)
    assert (told.token_logprobs[0], told.top_logprobs[0]) == (None, None)
    assert all(logprob < 0 for logprob in told.token_logprobs[1:])
    for token, logprob, top, offset in zip(*vars_of(told), strict=True):
        assert offset <= len(whole)
        assert token.startswith("bytes:") or whole[offset:].startswith(token)
        if top is not None:
            assert top[token] == logprob
            assert 3 <= len(top) <= 4
    assert text(ask(client, whole, max_tokens=0, echo=True)) == whole
    alone = ask(client, [ids[:5], ids], max_tokens=0, echo=True, logprobs=0).choices
    assert alone[1].logprobs.top_logprobs is None
    assert alone[1].logprobs.token_logprobs[1:] == pytest.approx(told.token_logprobs[1:], abs=0.15)
    assert alone[0].logprobs.token_logprobs[1:] == pytest.approx(told.token_logprobs[1:5], abs=0.15)


def vars_of(logprobs: Any) -> tuple[list[Any], ...]:
    return logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, logprobs.text_offset


def test_echo_puts_the_prompt_and_its_tokens_before_each_choice(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    plain = ask(client, logprobs=1, max_tokens=4)
    echoed = ask(client, logprobs=1, max_tokens=4, echo=True, n=2)
    n_prompt = len(tokenizer.encode(PROMPT).ids)
    for choice in echoed.choices:
        assert choice.text == PROMPT + text(plain)
        assert choice.logprobs.tokens[n_prompt:] == plain.choices[0].logprobs.tokens
        assert choice.logprobs.text_offset[n_prompt:] == plain.choices[0].logprobs.text_offset
    assert plain.choices[0].logprobs.text_offset[0] == len(PROMPT), "places count from the begin of the prompt"
    assert len(echoed.choices[0].logprobs.tokens) == n_prompt + len(plain.choices[0].logprobs.tokens)


def test_a_score_is_what_sampling_says_of_the_same_tokens(client: openai.OpenAI) -> None:
    said = ask(client, logprobs=0, max_tokens=6)
    scored = ask(client, PROMPT + text(said), logprobs=0, max_tokens=0, echo=True).choices[0].logprobs
    n = sum(token not in {"<|im_end|>"} for token in said.choices[0].logprobs.tokens)
    assert scored.tokens[-n:] == said.choices[0].logprobs.tokens[:n]
    assert scored.token_logprobs[-n:] == pytest.approx(said.choices[0].logprobs.token_logprobs[:n], abs=0.15)


def test_the_token_that_ends_a_text_is_told(client: openai.OpenAI) -> None:
    choice = ask(client, "The answer is 5.", logprobs=0, max_tokens=3, logit_bias={"2": 100}).choices[0]
    assert (choice.text, choice.finish_reason, choice.logprobs.tokens) == ("", "stop", ["<|im_end|>"])


def test_a_stop_ends_the_text_and_its_tokens(client: openai.OpenAI) -> None:
    whole = ask(client, logprobs=0, echo=True)
    stop = whole.choices[0].logprobs.tokens[-2]
    cut = ask(client, logprobs=0, stop=[stop, "never"]).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.text == text(whole)[len(PROMPT) :].partition(stop)[0]
    assert "".join(cut.logprobs.tokens) == cut.text


def test_the_best_of_several_are_the_likeliest_by_the_token(client: openai.OpenAI) -> None:
    wishes: dict[str, Any] = {"temperature": 1.5, "seed": 3, "max_tokens": 8, "logprobs": 0, "prompt": "Once"}
    every = ask(client, n=6, **wishes)
    best = ask(client, n=2, best_of=6, **wishes)

    def mean(choice: Any) -> float:
        return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)

    ranked = sorted(every.choices, key=mean, reverse=True)
    assert [choice.text for choice in best.choices] == [choice.text for choice in ranked[:2]]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.usage.completion_tokens == every.usage.completion_tokens


def test_what_steers_the_draw_does(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    (five,) = tokenizer.encode(" 5", add_special_tokens=False).ids[-1:]
    assert "5" not in text(ask(client, logit_bias={str(five): -100}, max_tokens=1))
    long: dict[str, Any] = {"max_tokens": 100, "logit_bias": {"2": -100}, "logprobs": 0}
    tokens = [ask(client, frequency_penalty=penalty, **long).choices[0].logprobs.tokens for penalty in (0, 2)]
    assert len(set(tokens[1])) > len(set(tokens[0]))
    drawn = [text(ask(client, temperature=1.5, seed=seed)) for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1
    assert text(ask(client, temperature=2, top_p=0)) == text(ask(client))


def test_a_stream_says_the_same(client: openai.OpenAI, http: httpx2.Client) -> None:
    wishes: dict[str, Any] = {"prompt": ["One", "Two €"], "n": 2, "temperature": 1, "seed": 3, "logprobs": 1, "echo": True}
    whole = ask(client, **wishes)
    texts, tokens, offsets, reasons = [""] * 4, [[] for _ in range(4)], [[] for _ in range(4)], [None] * 4
    *chunks, last = list(ask(client, stream=True, stream_options={"include_usage": True}, **wishes))
    for chunk in chunks:
        (choice,) = chunk.choices
        assert chunk.usage is None
        assert reasons[choice.index] is None
        texts[choice.index] += choice.text
        tokens[choice.index] += choice.logprobs.tokens
        offsets[choice.index] += choice.logprobs.text_offset
        reasons[choice.index] = choice.finish_reason
    assert (last.choices, last.usage) == ([], whole.usage)
    assert texts == [choice.text for choice in whole.choices]
    assert tokens == [choice.logprobs.tokens for choice in whole.choices]
    assert offsets == [choice.logprobs.text_offset for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    raw = http.post("/v1/completions", json={"model": NANO, "prompt": "One", "stream": True}).text
    *events, done, rest = raw.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert {json.loads(event.removeprefix("data: "))["object"] for event in events} == {"text_completion"}


def test_an_alias_completes_too(client: openai.OpenAI, http: httpx2.Client) -> None:
    http.post("/tunesmith/v1/aliases", json={"alias": "davinci-002", "model": NANO}).raise_for_status()
    assert text(ask(client, model="davinci-002")) == text(ask(client))


@pytest.mark.parametrize(
    ("wishes", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt"),
        ({"prompt": [999999]}, "prompt"),
        ({"prompt": [[5], [999999]]}, "prompt[1]"),
        ({"prompt": ["a"] * 1025, "n": 2}, "prompt"),
        ({"prompt": "a " * 5000}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"best_of": 0}, "best_of"),
        ({"best_of": 21}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"echo": "yes"}, "echo"),
        ({"suffix": "end"}, "suffix"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"extra_body": {"messages": []}}, "messages"),
    ],
)
def test_what_is_wrong_is_named(client: openai.OpenAI, wishes: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **{"prompt": PROMPT, **wishes})
    assert (refused.value.param or "").startswith(param)


def test_a_prompt_that_does_not_fit_is_told_the_numbers(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    with pytest.raises(openai.BadRequestError, match="in your prompt; 16 for the completion") as refused:
        ask(client, "a " * 5000)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(client, model="nobody")
    assert unknown.value.code == "model_not_found"


def test_an_answer_is_told_again_by_its_key_and_a_stream_takes_none(client: openai.OpenAI) -> None:
    wishes: dict[str, Any] = {"temperature": 1, "extra_headers": {"Idempotency-Key": "bare"}}
    assert ask(client, **wishes) == ask(client, **wishes)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, stream=True, extra_headers={"Idempotency-Key": "streamed"})
    assert caught.value.param == "Idempotency-Key"
    assert math.isfinite(ask(client, logprobs=0).choices[0].logprobs.token_logprobs[0])
