"""A keeper of sampler processes over a tiny base, and a way to ask it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.clock import SystemClock
from tunesmith.core.settings import Settings
from tunesmith.domain.ports import GenerateRequest, Sampled
from tunesmith.inference.resident import Resident

#: Makes every step of a sampler take its time.
SLOW = "sampler.step=sleep:0.02"


class Kept:
    """A `Resident` and the base it is asked for."""

    def __init__(self, folder: Path, base: Path, **settings: Any) -> None:
        self.base = str(base)
        self.resident = Resident(folder, settings=Settings(**settings), clock=SystemClock())

    async def ask(self, prompt: list[int], **wishes: Any) -> list[Sampled]:
        wishes = {"max_tokens": 5, "temperature": 0.0, **wishes}
        async with asyncio.timeout(120):
            return [each async for each in self.resident.stream(self.base, GenerateRequest(prompt, **wishes))]

    async def status(self) -> dict[str, Any]:
        """Return what the base's sampler is at."""
        return (await self.resident.status())[self.base]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, base_folder: Callable[[str], Path]) -> Iterator[Kept]:
    """Return a keeper whose sampler serves, each step slowed down, for tests that leave one serving; so it is started once.

    It was started from another event loop than any test's, as it is closed from another.
    """
    kept = Kept(tmp_path_factory.mktemp("sockets"), base_folder("llama"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNESMITH_FAILPOINTS", SLOW)
        patch.setenv("MY_SECRET_KEY", "hush")
        asyncio.run(kept.resident.warm(kept.base))
    yield kept
    asyncio.run(kept.resident.close())


@pytest.fixture
async def keep(tmp_path: Path, base_folder: Callable[[str], Path]) -> AsyncIterator[Callable[..., Kept]]:
    """Return a function that makes a keeper; all of them are closed at the end."""
    made: list[Kept] = []

    def make(**settings: Any) -> Kept:
        kept = Kept(tmp_path, base_folder("llama"), **settings)
        made.append(kept)
        return kept

    yield make
    for kept in made:
        await kept.resident.close()
