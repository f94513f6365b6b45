"""Several streams are one: so many at once, everything told, errors and closing end them all."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from tunesmith.core.merging import merged

pytestmark = pytest.mark.anyio


class Sources:
    """Streams that tell how many of them are open."""

    def __init__(self) -> None:
        self.n_open = self.n_most = self.n_made = 0

    async def numbers(self, first: int, n: int, fails: bool = False) -> AsyncGenerator[int]:
        self.n_made += 1
        self.n_open += 1
        self.n_most = max(self.n_most, self.n_open)
        try:
            for number in range(first, first + n):
                await asyncio.sleep(0)
                yield number
            if fails:
                raise ValueError("broken")
        finally:
            self.n_open -= 1


async def test_everything_is_told_and_never_too_many_are_open() -> None:
    sources = Sources()
    told = [each async for each in merged((sources.numbers(10 * i, 5) for i in range(20)), n_at_once=3)]
    assert sorted(told) == [10 * i + k for i in range(20) for k in range(5)]
    assert (sources.n_most, sources.n_open) == (3, 0)
    assert [each async for each in merged(iter([sources.numbers(0, 0)]), n_at_once=0)] == []


async def test_an_error_ends_all_of_them() -> None:
    sources = Sources()
    streams = (sources.numbers(0, 100 if i else 3, fails=not i) for i in range(50))
    with pytest.raises(ValueError, match="broken"):
        [each async for each in merged(streams, n_at_once=4)]
    assert (sources.n_open, sources.n_made) == (0, 4)


async def test_closing_closes_all_of_them() -> None:
    sources = Sources()
    async with aclosing(merged((sources.numbers(0, 100) for _ in range(9)), n_at_once=4)) as told:
        assert await anext(told) == 0
    assert (sources.n_open, sources.n_made) == (0, 4)
