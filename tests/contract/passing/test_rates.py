"""Rates of requests and tokens: OpenAI's headers, its 429, and its clients that wait and send again."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from far import N_COMPLETION, N_PROMPT, FarServer, says
from far.passing import ask

PROJECT = "proj_default"
KINDS = ("limit", "remaining", "reset")


@pytest.fixture
def limited(house: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that limits what may be asked of the model, until the test ends."""
    with openai.OpenAI(base_url=house.base_url, api_key="any", admin_api_key="any", max_retries=0) as client:
        rates = client.admin.organization.projects.rate_limits

        def limit(**rate: int | None) -> Any:
            return rates.update_rate_limit("rl-my-m", project_id=PROJECT, **rate)  # type: ignore[arg-type]

        yield limit
        limit(max_requests_per_1_minute=None, max_tokens_per_1_minute=None)
        house.composed.services.limits._buckets.clear()


def told(headers: Any, what: str) -> list[str]:
    return [headers[f"x-ratelimit-{kind}-{what}"] for kind in KINDS]


def test_without_a_limit_nothing_is_told(chat: openai.OpenAI, other: FarServer) -> None:
    raw = chat.chat.completions.with_raw_response.create(model="my-m", messages=[{"role": "user", "content": "x"}])
    assert not [name for name in raw.headers if name.startswith("x-ratelimit")]


def test_requests_a_minute(chat: openai.OpenAI, other: FarServer, limited: Callable[..., Any]) -> None:
    changed = limited(max_requests_per_1_minute=2)
    assert (changed.object, changed.id, changed.model) == ("project.rate_limit", "rl-my-m", "my-m")
    assert (changed.max_requests_per_1_minute, changed.max_tokens_per_1_minute) == (2, None)
    create = chat.chat.completions.with_raw_response.create
    first = create(model="my-m", messages=[{"role": "user", "content": "x"}])
    assert told(first.headers, "requests") == ["2", "1", "30s"]
    assert "x-ratelimit-limit-tokens" not in first.headers
    ask(chat)
    with pytest.raises(openai.RateLimitError) as raised:
        ask(chat)
    error = raised.value
    assert (error.code, error.type, error.param) == ("rate_limit_exceeded", "requests", None)
    assert "Rate limit reached for my-m in project proj_default on requests per min (RPM): Limit 2, Used 2" in error.message
    assert 1 <= int(error.response.headers["retry-after"]) <= 30
    assert 0 < int(error.response.headers["retry-after-ms"]) <= 30_000
    assert told(error.response.headers, "requests")[:2] == ["2", "0"]
    assert len(other.asked) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_are_guessed_and_then_settled(
    chat: openai.OpenAI, other: FarServer, limited: Callable[..., Any], house: Any, stream: bool
) -> None:
    limited(max_tokens_per_1_minute=1000)
    other.acts.append(says("yes"))
    raw = chat.chat.completions.with_raw_response.create(
        model="my-m", messages=[{"role": "user", "content": "x" * 400}], max_completion_tokens=300, stream=stream
    )
    guessed = 1000 - int(raw.headers["x-ratelimit-remaining-tokens"])
    assert 400 < guessed < 500, "a quarter of the characters, and all that the answer may have"
    if stream:
        assert list(raw.parse())
    bucket = house.composed.services.limits._buckets[PROJECT, "my-m", "tokens"]
    end = time.monotonic() + 5
    while bucket._level < 1000 - 30 and time.monotonic() < end:
        time.sleep(0.01)
    assert 1000 - bucket._level == pytest.approx(N_PROMPT + N_COMPLETION, abs=10)


def test_a_request_over_a_minutes_worth_is_not_to_be_sent_again(chat: openai.OpenAI, limited: Callable[..., Any]) -> None:
    limited(max_tokens_per_1_minute=100)
    with pytest.raises(openai.RateLimitError, match="Request too large for my-m") as raised:
        ask(chat, max_tokens=200)
    assert (raised.value.code, raised.value.type) == ("rate_limit_exceeded", "tokens")
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in raised.value.response.headers
    limited(max_requests_per_1_minute=0)
    with pytest.raises(openai.RateLimitError, match=r"Limit 0, Requested 1\. .* have an admin raise the limit"):
        ask(chat)


def test_the_client_waits_as_told_and_is_served(
    chat: openai.OpenAI, other: FarServer, limited: Callable[..., Any], house: Any
) -> None:
    limited(max_requests_per_1_minute=300)
    limits, scope = house.composed.services.limits, house.scope
    for _ in range(300):
        limits.enter(scope, "my-m", 0)
    limits._buckets[PROJECT, "my-m", "requests"].take(1, time.monotonic())
    assert ask(chat.with_options(max_retries=1)).choices[0].message.content == "yes"
    assert len(other.asked) == 1


def test_rate_limits_are_listed_by_model(house: Any, limited: Callable[..., Any]) -> None:
    limited(max_requests_per_1_minute=7)
    with openai.OpenAI(base_url=house.base_url, api_key="any", admin_api_key="any", max_retries=0) as client:
        rates = client.admin.organization.projects.rate_limits
        every = list(rates.list_rate_limits(PROJECT, limit=1))
        assert {each.model: each.max_requests_per_1_minute for each in every}["my-m"] == 7
        ids = [each.id for each in every]
        page = rates.list_rate_limits(PROJECT, before=ids[2], limit=1)
        assert ([each.id for each in page.data], page.has_more) == ([ids[1]], True)
        for call in (
            lambda: rates.list_rate_limits("proj_none"),
            lambda: rates.update_rate_limit("rl-none", project_id=PROJECT, max_requests_per_1_minute=1),
        ):
            with pytest.raises(openai.NotFoundError):
                call()
        with pytest.raises(openai.BadRequestError) as raised:
            rates.update_rate_limit("rl-my-m", project_id=PROJECT, max_images_per_1_minute=1)
        assert raised.value.param == "max_images_per_1_minute"
