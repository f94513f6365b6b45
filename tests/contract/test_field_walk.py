"""Every field of a request does its work, is listed without effect, or is refused by its name with the way out."""

from typing import Any

import pytest

from tunesmith.api.chat_schema import NOT_YET, WITHOUT_EFFECT, CreateChatCompletion
from tunesmith.api.completions_schema import WITHOUT_EFFECT as BARE_WITHOUT_EFFECT
from tunesmith.api.completions_schema import CreateCompletion
from tunesmith.core.errors import NotAvailable

#: A value of each field that asks for something.
ASKED: dict[str, Any] = {
    "audio": {"voice": "alloy", "format": "wav"}, "frequency_penalty": 0.5, "function_call": "none",
    "functions": [{"name": "f"}], "logit_bias": {"5": 1}, "logprobs": True, "max_completion_tokens": 5, "max_tokens": 5,
    "messages": [{"role": "user", "content": "other"}], "metadata": {"a": "b"}, "modalities": ["audio"], "model": "other",
    "moderation": {"model": "m"}, "n": 2, "parallel_tool_calls": False, "prediction": {"type": "content", "content": "x"},
    "presence_penalty": -0.5, "prompt_cache_key": "k", "prompt_cache_options": {"ttl": "30m"},
    "prompt_cache_retention": "24h", "reasoning_effort": "low", "response_format": {"type": "json_object"},
    "safety_identifier": "s", "seed": 5, "service_tier": "flex", "stop": "x", "store": True, "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.5, "tool_choice": "required", "tools": [{"type": "function", "function": {"name": "f"}}],
    "top_logprobs": 3, "top_p": 0.5, "user": "u", "verbosity": "low", "web_search_options": {},
}  # fmt: skip
#: What some fields are only for.
BESIDE: dict[str, Any] = {
    "function_call": {"functions": ASKED["functions"]}, "metadata": {"store": True}, "stream_options": {"stream": True},
    "tool_choice": {"tools": ASKED["tools"]}, "top_logprobs": {"logprobs": True},
}  # fmt: skip
#: Fields whose work is done where a request comes in, so that the service need not know.
AT_THE_DOOR = {"metadata", "store", "stream", "stream_options"}


@pytest.mark.parametrize("name", sorted(CreateChatCompletion.model_fields))
def test_each_field_of_a_chat_does_its_work_or_is_listed_without_effect_or_is_refused_by_name(name: str) -> None:
    plain = {"model": "m", "messages": [{"role": "user", "content": "json"}], **BESIDE.get(name, {})}
    body = CreateChatCompletion.model_validate({**plain, name: ASKED[name]})
    if name in NOT_YET:
        with pytest.raises(NotAvailable) as refused:
            body.checked()
        assert (refused.value.error_param, "leave it out" in str(refused.value)) == (name, True)
        return
    does_nothing = body.checked() == CreateChatCompletion.model_validate(plain).checked()
    assert does_nothing == (name in WITHOUT_EFFECT | AT_THE_DOOR)


BARE_ASKED: dict[str, Any] = {
    "best_of": 3, "echo": True, "frequency_penalty": 0.5, "logit_bias": {"5": 1}, "logprobs": 2, "max_tokens": 5,
    "model": "other", "n": 2, "presence_penalty": 0.5, "prompt": [5], "seed": 5, "stop": "x", "stream": True,
    "stream_options": {"include_usage": True}, "suffix": "end", "temperature": 0.5, "top_p": 0.5, "user": "u",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CreateCompletion.model_fields))
def test_each_field_of_a_bare_completion_does_too(name: str) -> None:
    plain = {"model": "m", "prompt": "x", **({"stream": True} if name == "stream_options" else {})}
    body = CreateCompletion.model_validate({**plain, name: BARE_ASKED[name]})
    if name == "suffix":
        with pytest.raises(NotAvailable, match="leave it out"):
            body.checked()
        return
    does_nothing = body.checked() == CreateCompletion.model_validate(plain).checked()
    assert does_nothing == (name in BARE_WITHOUT_EFFECT | {"stream", "stream_options"})
