"""Asking servers upstream: pauses between tries, and what is told of a failure."""

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from far import FarModel, FarServer, far_server, sends, status
from tunesmith.core.clock import SystemClock
from tunesmith.domain.ports import Endpoint, UpstreamFailed
from tunesmith.inference import upstream
from tunesmith.inference.upstream import HttpUpstreams

pytestmark = pytest.mark.anyio
ASKED: Any = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def far() -> Iterator[FarServer]:
    with far_server() as server:
        server.models["m"] = FarModel()
        yield server


def asker(**wishes: Any) -> HttpUpstreams:
    return HttpUpstreams(clock=SystemClock(), chance=random.Random(1), **wishes)


async def failure(far: FarServer, at: Endpoint | None = None, **wishes: Any) -> UpstreamFailed:
    with pytest.raises(UpstreamFailed) as caught:
        await asker(first_pause_s=0.001, **wishes).call(at or Endpoint(far.url), "chat/completions", ASKED)
    return caught.value


async def test_pauses_double_from_try_to_try(far: FarServer) -> None:
    far.acts.extend([status(500, retry_after="")] * 3)
    began = time.monotonic()
    answer = await asker(first_pause_s=0.1).call(Endpoint(far.url), "chat/completions", ASKED)
    assert answer["choices"][0]["message"]["content"] == "yes"
    assert time.monotonic() - began >= 0.75 * (0.1 + 0.2 + 0.4)


@pytest.mark.parametrize("asked", ["0.2", "nan", "soon", "-5", "Thu, 01 Jan 1970 00:00:00 GMT"])
async def test_a_server_may_ask_for_its_pause(far: FarServer, asked: str) -> None:
    far.acts.append(status(429, retry_after=asked))
    began = time.monotonic()
    await asker(first_pause_s=0.001).call(Endpoint(far.url), "chat/completions", ASKED)
    assert time.monotonic() - began >= (0.2 if asked == "0.2" else 0)


@pytest.mark.parametrize("asked", ["31", "inf", "Fri, 01 Jan 2999 00:00:00 GMT"])
async def test_one_that_asks_for_too_long_is_not_waited_for(far: FarServer, asked: str) -> None:
    far.acts.extend([status(429, "busy", retry_after=asked)] * 2)
    told = await failure(far)
    assert (str(told), told.status) == (f"{far.url} answers 429: busy", 429)
    assert len(far.asked) == 1


async def test_more_than_an_answer_can_be_is_not_read(far: FarServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "N_MAX_BYTES", 1000)
    far.acts.append(sends(b" " * 1001))
    assert "answers more than 1000 bytes" in str(await failure(far))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": {"message": "a  b\nc"}}, "a b c"),
        ({"error": "plain"}, "plain"),
        ({"message": "flat"}, "flat"),
        ({"detail": [{"loc": 1}]}, "[{'loc': 1}]"),
        ({"error": 7}, '{"error": 7}'),
        ([], "[]"),
        (b"", "nothing"),
        ({"error": {"message": "half \ud800"}}, "half ?"),
        ({"error": {"message": "x" * 5000}}, "x" * 500),
    ],
)
async def test_a_refusal_is_told_in_the_servers_words(far: FarServer, body: Any, reason: str) -> None:
    far.acts.append(sends(body, 403))
    assert str(await failure(far)) == f"{far.url} answers 403: {reason}"


async def test_a_redirect_takes_no_key_elsewhere(far: FarServer) -> None:
    far.acts.append(lambda answer: answer.send(307, {}, location="http://127.0.0.1:9/"))
    told = await failure(far, Endpoint(far.url, "sk-1"))
    assert "answers 307" in str(told)


async def test_a_key_shows_in_no_words(far: FarServer) -> None:
    at = Endpoint(far.url, "sk-x/y")
    assert "sk-x" not in repr(at)
    far.acts.append(sends(b'{"a": ["sk-x\\/y", {"b": "my sk-x/y"}], "n": 1}'))
    answer = await asker().call(at, "chat/completions", ASKED)
    assert answer == {"a": ["[key]", {"b": "my [key]"}], "n": 1}


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://nobody.invalid/v1", "http://a..b/v1"])
async def test_a_server_that_is_not_there_is_told(far: FarServer, url: str) -> None:
    told = await failure(far, Endpoint(url), timeout_s=20.0)
    assert str(told).startswith(f"{url} cannot be asked: ")
    assert (told.status, told.passing) == (0, True)
