"""A sampler that dies, or lacks memory, in the middle of answers: each is told, once, and the next request is answered."""

import asyncio
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tunesmith.inference import keeper

MODEL = "tunesmith-nano"
SAID: list[Any] = [{"role": "user", "content": "Hello there"}]
LONG: Any = {
    "type": "json_schema", "json_schema": {"name": "long", "schema": {"type": "string", "minLength": 4000}},
}  # fmt: skip
TELLS = "The sampler of .* stopped while it answered. It is started again: send the request again."


@pytest.fixture(scope="module")
def slow(open_house: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_house(tmp_path_factory.mktemp("slow")) as served:
        yield served


@pytest.fixture(autouse=True)
def _samplers_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "sampler.step=sleep:0.02")


@pytest.fixture
def client(slow: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=slow.base_url, api_key="any", max_retries=0, timeout=120) as client:
        yield client


def ask(client: openai.OpenAI, **wishes: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL, "messages": SAID, "max_tokens": 3, "temperature": 0, **wishes})


def text(answer: Any) -> str:
    return answer.choices[0].message.content


def status(served: Any) -> dict[str, Any]:
    return next(iter(asyncio.run(served.composed.inference.status()).values()))


def pid(served: Any) -> int:
    return status(served)["pid"]


@pytest.mark.parametrize("restart_after_s", [0.0, 3600.0], ids=["started again at once", "started again when asked"])
def test_a_killed_sampler_is_one_error_to_each_and_the_next_request_is_answered(
    slow: Any, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, restart_after_s: float
) -> None:
    monkeypatch.setattr(keeper, "RESTART_AFTER_S", restart_after_s)
    expected = text(ask(client))
    first = pid(slow)
    came: list[openai.APIError] = []

    def whole() -> None:
        try:
            ask(client, max_tokens=1500, response_format=LONG)
        except openai.APIError as error:
            came.append(error)

    waiting = threading.Thread(target=whole)
    waiting.start()
    with ask(client, max_tokens=1500, stream=True, response_format=LONG) as stream:
        events = iter(stream)
        while not next(events).choices[0].delta.content:
            pass
        end = time.monotonic() + 30
        while status(slow)["rows"] < 2 and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(openai.APIError, match=TELLS) as broken:
            for _ in events:
                pass
    assert not isinstance(broken.value, openai.APIStatusError), "the status had been sent: it is the last chunk"
    waiting.join()
    (refused,) = came
    assert isinstance(refused, openai.InternalServerError)
    assert (refused.status_code, refused.type) == (503, "server_error")
    assert text(ask(client)) == expected
    assert pid(slow) != first


def test_a_sampler_without_memory_fails_what_needs_it_and_lives(slow: Any, client: openai.OpenAI) -> None:
    expected = text(ask(client))
    number = pid(slow)
    held = int(Path(f"/proc/{number}/statm").read_text().split()[0]) * resource.getpagesize()
    unlimited = resource.prlimit(number, resource.RLIMIT_AS)
    resource.prlimit(number, resource.RLIMIT_AS, (held + 100_000_000, unlimited[1]))
    long: list[Any] = [{"role": "user", "content": "word " * 1000}]
    neighbour: list[Any] = []
    asking = threading.Thread(target=lambda: neighbour.append(ask(client, max_tokens=60, response_format=LONG)))
    asking.start()
    try:
        with pytest.raises(openai.InternalServerError, match=r"could not be served: .*memory") as refused:
            ask(client, messages=long, n=64, temperature=1)
        assert refused.value.status_code == 503
    finally:
        resource.prlimit(number, resource.RLIMIT_AS, unlimited)
    asking.join()
    assert neighbour[0].choices[0].finish_reason == "length", "who was under way beside it goes on"
    assert text(ask(client)) == expected
    assert ask(client, messages=long, n=64, temperature=1).choices
    assert pid(slow) == number
