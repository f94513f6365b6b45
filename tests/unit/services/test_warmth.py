"""Samplers are asked for ahead of time, from any thread, and nothing comes of it when they cannot be made."""

import asyncio
import threading
from collections.abc import AsyncGenerator

import pytest

from tunesmith.core.errors import Unavailable
from tunesmith.domain.ports import GenerateRequest, Sampled
from tunesmith.services.warmth import Warmth


class Stove:
    """An inference that notes what it was to warm; `broken` bases fail, `slow` ones take for ever."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.given_up: list[str] = []

    def stream(self, base_path: str, request: GenerateRequest) -> AsyncGenerator[Sampled]:
        raise AssertionError("nobody asks for an answer here")

    async def warm(self, base_path: str) -> None:
        self.asked.append(base_path)
        if base_path == "broken":
            raise Unavailable("no such base")
        if base_path == "slow":
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                self.given_up.append(base_path)
                raise

    async def forget(self, adapter_name: str) -> None:
        """Nothing is loaded."""

    def unload(self, base_path: str) -> None:
        """Hold no base."""

    async def close(self) -> None:
        """Nothing is open."""


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.anyio
async def test_the_servers_base_and_then_those_of_jobs_are_asked_for() -> None:
    stove = Stove()
    warmth = Warmth(stove, wanted=True)
    warmth.ask("before the start")
    warmth.begin("own")
    asker = threading.Thread(target=warmth.ask, args=("a job's",))
    asker.start()
    await asyncio.to_thread(asker.join)
    warmth.ask("broken")
    warmth.ask("slow")
    await _settle()
    assert stove.asked == ["own", "a job's", "broken", "slow"]
    warmth.end()
    warmth.ask("after the end")
    await _settle()
    assert (stove.asked[-1], stove.given_up) == ("slow", ["slow"])


@pytest.mark.anyio
@pytest.mark.parametrize(("wanted", "own"), [(False, "own"), (True, None)])
async def test_nothing_is_asked_for_when_it_is_not_wanted_or_there_is_no_base(wanted: bool, own: str | None) -> None:
    stove = Stove()
    warmth = Warmth(stove, wanted=wanted)
    warmth.begin(own)
    await _settle()
    assert stove.asked == []
    warmth.end()
