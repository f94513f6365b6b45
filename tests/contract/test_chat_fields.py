"""Fields that steer the draw and tell of it, over the embedded base and its real sampler, as the client sees them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from tokenizers import Tokenizer

MODEL = "tunesmith-nano"
SAID: list[Any] = [{"role": "user", "content": "What is 2 plus 3?"}]


def ask(client: openai.OpenAI, **wishes: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL, "messages": SAID, "max_tokens": 12, "temperature": 0, **wishes})


@pytest.fixture(scope="module")
def tokenizer(served: Any) -> Tokenizer:
    return Tokenizer.from_file(str(Path(served.composed.services.bases.find(MODEL).path) / "tokenizer.json"))


def joined(tokens: list[Any]) -> str:
    return b"".join(bytes(token.bytes) for token in tokens).decode()


def test_each_token_of_the_text_is_told_with_the_likeliest_in_its_place(
    client: openai.OpenAI, conforms: Callable[..., None]
) -> None:
    answer = ask(client, logprobs=True, top_logprobs=4)
    conforms(answer, "CreateChatCompletionResponse")
    (choice,) = answer.choices
    tokens = choice.logprobs.content
    assert joined(tokens) == choice.message.content != ""
    assert "".join(token.token for token in tokens) == choice.message.content
    assert choice.logprobs.refusal is None
    for token in tokens:
        best = [each.logprob for each in token.top_logprobs]
        assert len(best) == 4
        assert best == sorted(best, reverse=True)
        assert sum(map(math.exp, best)) <= 1 + 1e-5
        assert (token.token, token.logprob) == (token.top_logprobs[0].token, best[0]), "the answer is the likeliest one"
    assert ask(client).choices[0].logprobs is None
    assert [token.top_logprobs for token in ask(client, logprobs=True).choices[0].logprobs.content] == [[]] * len(tokens)
    assert len(ask(client, logprobs=True, top_logprobs=20).choices[0].logprobs.content[0].top_logprobs) == 20


def test_a_stream_tells_the_same_tokens_beside_their_text(client: openai.OpenAI, conforms: Callable[..., None]) -> None:
    wishes: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, "n": 2, "temperature": 1, "seed": 3}
    whole = ask(client, **wishes)
    told: list[list[Any]] = [[], []]
    for chunk in ask(client, stream=True, **wishes):
        conforms(chunk, "CreateChatCompletionStreamResponse")
        (choice,) = chunk.choices
        tokens = choice.logprobs.content if choice.logprobs else []
        assert joined(tokens) == (choice.delta.content or "")
        told[choice.index] += tokens
    assert told == [choice.logprobs.content for choice in whole.choices]


def test_log_probabilities_are_the_models_own_whatever_steers_the_draw(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    def first(**wishes: Any) -> Any:
        return ask(client, logprobs=True, top_logprobs=3, max_tokens=1, **wishes).choices[0].logprobs.content[0]

    plain = first()
    second = next(token for token in plain.top_logprobs if token.token != plain.token)
    (chosen,) = tokenizer.encode(second.token, add_special_tokens=False).ids
    steered = first(logit_bias={str(chosen): 100}, temperature=2, top_p=0.5, presence_penalty=2, seed=1)
    assert steered.token == second.token
    assert steered.logprob == pytest.approx(second.logprob)
    assert [each.logprob for each in steered.top_logprobs] == pytest.approx([each.logprob for each in plain.top_logprobs])


def test_a_ban_holds_and_a_grammar_that_leaves_nothing_else_breaks_it(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    assert ask(client).choices[0].message.content == "The answer is 5."
    banned = {str(tokenizer.token_to_id(token)): -100 for token in tokenizer.get_vocab() if "5" in token}
    other = ask(client, logit_bias=banned).choices[0].message.content
    assert other
    assert "5" not in other
    bound = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": ["5"]}}}
    assert ask(client, logit_bias=banned, response_format=bound).choices[0].message.content == '"5"'


def test_penalties_keep_an_answer_from_repeating_itself(client: openai.OpenAI) -> None:
    def repeats(**wishes: Any) -> int:
        tokens = ask(client, max_tokens=150, logprobs=True, seed=1, **wishes).choices[0].logprobs.content
        return len(tokens) - len({token.token for token in tokens})

    loud = {"logit_bias": {"2": -100}}  # never ends by itself
    plain = repeats(**loud)
    assert repeats(**loud, frequency_penalty=2) < plain / 2
    assert repeats(**loud, presence_penalty=2) < plain < repeats(**loud, presence_penalty=-2) + plain / 2


def test_the_tokens_of_a_stop_string_are_not_told(client: openai.OpenAI) -> None:
    whole = ask(client, logprobs=True).choices[0]
    stop = whole.logprobs.content[2].token
    cut = ask(client, logprobs=True, stop=stop).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.message.content == whole.message.content.partition(stop)[0]
    assert joined(cut.logprobs.content or []) == cut.message.content


def test_a_seed_gives_the_same_answers_again_and_other_fields_others(client: openai.OpenAI) -> None:
    wishes: dict[str, Any] = {
        "n": 3, "temperature": 1.2, "top_p": 0.95, "seed": 11, "max_tokens": 30, "frequency_penalty": 0.5,
        "logit_bias": {"2": -5},
    }  # fmt: skip

    def texts(**more: Any) -> list[str]:
        return [choice.message.content for choice in ask(client, **{**wishes, **more}).choices]

    first = texts()
    assert len(set(first)) == 3
    assert texts() == first
    assert texts(n=1) == first[:1]
    assert [text for text in texts(seed=12) if text in first] != first
    assert texts(frequency_penalty=-2) != first
