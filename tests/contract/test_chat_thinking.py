"""Bases that think before they answer: efforts, thoughts beside the answer, forms and calls behind them."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import openai
import pytest

from far.judging import SCORE, flags, run
from tiny import TEMPLATE, base_of, build
from tunesmith.domain.scope import Everywhere
from tunesmith.store import models

SAID: list[Any] = [{"role": "user", "content": "Hello in JSON"}]
OPENS = "<|im_start|>assistant\n{% endif %}"
#: As Qwen's: a switch, and a thought that is empty where it is off.
SWITCH = TEMPLATE.replace(
    OPENS,
    "<|im_start|>assistant\n{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}",
)
#: As R1's: every answer begins within a thought.
ALWAYS = TEMPLATE.replace(OPENS, "<|im_start|>assistant\n<think>\n{% endif %}")
SCHEMA: dict[str, Any] = {
    "type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False,
}  # fmt: skip
FORM = {"type": "json_schema", "json_schema": {"name": "ok", "schema": SCHEMA}}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]
#: The token that ends a thought, made likely by a bias, for a base that says anything.
END = 258


@pytest.fixture(scope="module")
def client(open_house: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    with open_house(tmp_path_factory.mktemp("house")) as served:
        for name, template in (("switch", SWITCH), ("always", ALWAYS)):
            folder = tmp_path_factory.mktemp(name)
            build(folder, template=template, n_context=9000, tokens=("</think>", "<think>"))
            with served.composed.db.begin() as tx:
                models.add_base(tx, Everywhere("the test lays out bases"), base_of(folder, name, n_context=9000))
        with openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0, timeout=120) as client:
            yield client


def ask(client: openai.OpenAI, model: str, **wishes: Any) -> Any:
    wishes = {"messages": SAID, "max_tokens": 200, "seed": 2, "logit_bias": {str(END): 5}, **wishes}
    return client.chat.completions.create(model=model, **wishes)


def thought(said: Any) -> str:
    """Return what was thought: of a message, or of a stream's delta."""
    return getattr(said, "reasoning_content", None) or ""


def test_a_thought_is_told_beside_the_answer_and_counted(client: openai.OpenAI, conforms: Callable[..., None]) -> None:
    answer = ask(client, "always", n=4)
    conforms(answer, "CreateChatCompletionResponse")
    thoughts = [thought(choice.message) for choice in answer.choices]
    assert any(thoughts)
    assert all(text == text.strip() and "</think>" not in text for text in thoughts)
    assert all(choice.message.content for choice in answer.choices)
    n_thought = answer.usage.completion_tokens_details.reasoning_tokens
    assert sum(map(len, thoughts)) // 4 <= n_thought < answer.usage.completion_tokens


def test_a_stream_tells_the_same(client: openai.OpenAI, conforms: Callable[..., None]) -> None:
    whole = ask(client, "always")
    said, thinks = "", ""
    for chunk in ask(client, "always", stream=True, stream_options={"include_usage": True}):
        conforms(chunk, "CreateChatCompletionStreamResponse")
        for choice in chunk.choices:
            assert not (choice.delta.content and thought(choice.delta))
            said += choice.delta.content or ""
            thinks += thought(choice.delta)
        usage = chunk.usage
    assert (said, thinks) == (whole.choices[0].message.content, thought(whole.choices[0].message))
    assert usage.to_dict() == whole.usage.to_dict()


def test_a_thought_that_never_ends_takes_all_the_tokens(client: openai.OpenAI) -> None:
    answer = ask(client, "always", max_completion_tokens=12, max_tokens=openai.omit, logit_bias={str(END): -100})
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("", "length")
    assert answer.usage.completion_tokens == answer.usage.completion_tokens_details.reasoning_tokens == 12


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "high"])
def test_efforts_turn_the_templates_switch(client: openai.OpenAI, effort: str) -> None:
    answer = ask(client, "switch", reasoning_effort=effort, max_tokens=5)
    left = ask(client, "switch", max_tokens=5)
    longer = answer.usage.prompt_tokens > left.usage.prompt_tokens
    assert longer == (effort in ("none", "minimal"))


def test_an_effort_bounds_an_answer_of_open_length(client: openai.OpenAI) -> None:
    # what the thought may take and the answer: `low` is 2,048 tokens
    endless: Any = {"max_tokens": openai.omit, "logit_bias": {"256": -100}}
    answer = ask(client, "always", reasoning_effort="low", **endless)
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (2048, "length")


@pytest.mark.parametrize("base", ["always", "switch"])
@pytest.mark.parametrize("wishes", [{"response_format": FORM}, {"tools": TOOLS, "tool_choice": "required"}])
def test_a_form_binds_what_follows_the_thought(client: openai.OpenAI, base: str, wishes: Any) -> None:
    answer = ask(client, base, n=6, parallel_tool_calls=False, max_tokens=300, **wishes)
    n_thought = answer.usage.completion_tokens_details.reasoning_tokens
    assert n_thought > 0 or base == "switch"
    ended = [choice for choice in answer.choices if choice.finish_reason != "length"]
    assert ended
    for choice in ended:
        calls = choice.message.tool_calls
        jsonschema.validate(json.loads(calls[0].function.arguments if calls else choice.message.content), SCHEMA)
        assert bool(calls) == ("tools" in wishes)


@pytest.mark.parametrize(
    ("model", "effort", "told"),
    [
        ("tunesmith-nano", "low", "no such mode"),
        ("always", "none", "always thinks"),
        ("switch", "huge", "'none'"),
    ],
)
def test_an_effort_that_cannot_be_is_refused(client: openai.OpenAI, model: str, effort: str, told: str) -> None:
    with pytest.raises(openai.BadRequestError, match=told) as refused:
        ask(client, model, reasoning_effort=effort, logit_bias={})
    assert refused.value.param == "reasoning_effort"


def test_a_base_that_does_not_think_may_be_asked_not_to(client: openai.OpenAI) -> None:
    answer = ask(client, "tunesmith-nano", reasoning_effort="none", max_tokens=5, logit_bias={})
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0


def test_a_thought_is_taken_back_as_it_was_given(client: openai.OpenAI) -> None:
    message = {**ask(client, "always").choices[0].message.to_dict(), "reasoning_content": "Hm."}
    assert ask(client, "always", messages=[*SAID, message, *SAID], max_tokens=3).choices
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, "always", messages=[*SAID, {**message, "reasoning_content": 3}, *SAID])
    assert refused.value.param == "messages[1].reasoning_content"


def test_a_judge_of_this_server_thinks_where_its_base_does(client: openai.OpenAI) -> None:
    def grader(model: str, effort: str) -> Any:
        return {**SCORE, "model": model, "sampling_params": {"reasoning_effort": effort, "max_completions_tokens": 40}}

    graders = client.fine_tuning.alpha.graders
    for model, effort in (("switch", "low"), ("switch", "none"), ("always", "high"), ("tunesmith-nano", "none")):
        graders.validate(grader=grader(model, effort))
    for model, effort in (("always", "none"), ("tunesmith-nano", "low")):
        with pytest.raises(openai.BadRequestError) as caught:
            graders.validate(grader=grader(model, effort))
        assert str(caught.value.param).endswith("sampling_params.reasoning_effort")
    answer = run(client, grader("always", "low"))
    assert list(flags(answer)) == ["model_grader_exceeded_max_tokens_error"], "40 tokens do not hold thought and form"
