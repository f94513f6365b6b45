"""Several asynchronous streams as one, so many of them at once, each made when its turn comes."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import TypeVar

Item = TypeVar("Item")


async def merged(streams: Iterable[AsyncGenerator[Item]], *, n_at_once: int) -> AsyncGenerator[Item]:
    """Yield the items of all streams as they come; the first error ends them all, and so does closing this one."""
    waiting = iter(streams)
    items: asyncio.Queue[Item | asyncio.Task[None]] = asyncio.Queue()

    async def drain() -> None:
        for stream in waiting:
            async with aclosing(stream):
                async for item in stream:
                    items.put_nowait(item)

    drains = [asyncio.create_task(drain()) for _ in range(n_at_once)]
    for each in drains:
        each.add_done_callback(items.put_nowait)
    n_open = len(drains)
    try:
        while n_open:
            item = await items.get()
            if isinstance(item, asyncio.Task):
                item.result()
                n_open -= 1
            else:
                yield item
    finally:
        for each in drains:
            each.cancel()
        await asyncio.gather(*drains, return_exceptions=True)
