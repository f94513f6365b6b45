"""Short reads: on the event loop itself where the database is a file here, which takes less time than a thread's turn does.

A thread that reads gives the interpreter away at every row, and gets it back behind all others: with many at once that, and
not the reading, is what requests wait for. A database that is asked over a socket is read in a thread, and a long page too.
"""

from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from starlette.concurrency import run_in_threadpool

from tunesmith.services.all import Services

#: The longest page that is read here: some milliseconds.
N_SHORT: Final = 100

Asked = ParamSpec("Asked")
Found = TypeVar("Found")


async def read(
    served: Services, n_rows: int, call: Callable[Asked, Found], *args: Asked.args, **named: Asked.kwargs
) -> Found:
    """Return what a read of so many rows returns."""
    if served.reads_in_place and n_rows <= N_SHORT:
        return call(*args, **named)
    return await run_in_threadpool(call, *args, **named)
