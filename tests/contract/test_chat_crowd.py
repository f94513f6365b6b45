"""More requests than a sampler takes: who waits, who is turned away and comes again, whose place a leaving client frees."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

MODEL = "tunesmith-nano"
SAID: list[Any] = [{"role": "user", "content": "Hello there"}]
#: Takes every row there is, and none of them ends before the test does.
LONG = {"name": "long", "schema": {"type": "string", "minLength": 4000}}
CROWD: dict[str, Any] = {
    "n": 64, "max_tokens": 1500, "temperature": 2.0, "response_format": {"type": "json_schema", "json_schema": LONG}
}  # fmt: skip


def ask(client: openai.OpenAI, **wishes: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL, "messages": SAID, "max_tokens": 2, **wishes})


@pytest.fixture(scope="module")
def slow(open_house: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server that lets two requests wait for a sampler."""
    with open_house(tmp_path_factory.mktemp("slow"), sampler_queue=2) as served:
        yield served


@pytest.fixture(autouse=True)
def _samplers_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "sampler.step=sleep:0.05")


@pytest.fixture
def client(slow: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=slow.base_url, api_key="any", max_retries=0, timeout=60) as client:
        yield client


def status(served: Any) -> dict[str, Any]:
    return next(iter(asyncio.run(served.composed.inference.status()).values()))


def reaches(served: Any, **expected: int) -> None:
    deadline = time.monotonic() + 60
    while {name: value for name, value in status(served).items() if name in expected} != expected:
        assert time.monotonic() < deadline, status(served)
        time.sleep(0.02)


@contextmanager
def crowded(served: Any, client: openai.OpenAI, n_waiting: int = 0) -> Iterator[list[Any]]:
    """Have every row taken, and so many requests wait; yields what those came to, filled in when it ends."""
    came: list[Any] = []

    def waits() -> None:
        try:
            came.append(ask(client))
        except openai.APIError as error:
            came.append(error)

    threads = [threading.Thread(target=waits) for _ in range(n_waiting)]
    with ask(client, stream=True, **CROWD) as stream:
        next(iter(stream))
        for thread in threads:
            thread.start()
        reaches(served, rows=64, waiting=n_waiting)
        yield came
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("stream", [False, True])
def test_one_more_than_may_wait_is_turned_away_with_the_time_to_come_again(
    slow: Any, client: openai.OpenAI, stream: bool
) -> None:
    with crowded(slow, client, n_waiting=2) as came:
        began = time.monotonic()
        with pytest.raises(openai.RateLimitError, match=r"2 requests wait .*\(`sampler_queue`\)") as refused:
            ask(client, stream=stream)
        assert time.monotonic() - began < 5
        assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
        assert (refused.value.code, refused.value.type, refused.value.param) == ("rate_limit_exceeded", "requests", None)
    assert [bool(answer.choices) for answer in came] == [True, True]


def test_the_official_client_comes_again_by_itself(slow: Any, client: openai.OpenAI) -> None:
    told: list[Any] = []
    asks = client.with_options(max_retries=5).chat.completions.with_raw_response.create
    patient = threading.Thread(target=lambda: told.append(asks(model=MODEL, messages=SAID, max_tokens=2)))
    with crowded(slow, client, n_waiting=2):
        patient.start()
        time.sleep(0.5)
    patient.join()
    assert told[0].parse().choices
    assert told[0].retries_taken >= 1


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_while_waiting_makes_room(slow: Any, client: openai.OpenAI, stream: bool) -> None:
    with crowded(slow, client):
        with pytest.raises(openai.APITimeoutError):
            ask(client, stream=stream, timeout=0.5)
        reaches(slow, rows=64, waiting=0)
    reaches(slow, rows=0, waiting=0)


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_an_answer_frees_its_rows(slow: Any, client: openai.OpenAI, stream: bool) -> None:
    ask(client)
    n_before = status(slow)["steps"]
    wishes = {**CROWD, "n": 3, "stream": stream}
    if stream:
        with ask(client, **wishes) as answer:
            next(iter(answer))
    else:
        with pytest.raises(openai.APITimeoutError):
            ask(client, **wishes, timeout=0.5)
    reaches(slow, rows=0, waiting=0)
    assert status(slow)["steps"] < n_before + 100


def test_who_leaves_while_the_base_is_loaded_is_not_answered_and_no_more_wait_for_it_than_may(
    open_house: Callable[..., Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "sampler.spawn=sleep:3,sampler.step=sleep:0.05")
    with (
        open_house(tmp_path / "data", sampler_queue=2) as served,
        openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0, timeout=60) as client,
    ):
        refusals: list[openai.APIError] = []

        def leaves(stream: bool) -> None:
            try:
                ask(client, max_tokens=400, stream=stream, timeout=1.5)
            except openai.APIError as error:
                refusals.append(error)

        threads = [threading.Thread(target=leaves, args=(stream,)) for stream in (False, True, False)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(type(error).__name__ for error in refusals) == ["APITimeoutError", "APITimeoutError", "RateLimitError"]
        assert ask(client).choices
        assert status(served)["steps"] < 10
        reaches(served, rows=0, waiting=0)
