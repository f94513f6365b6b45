"""Server-sent events as they come over a wire: the data of each, whole, whatever the pieces that the bytes come in."""

from collections.abc import AsyncGenerator, AsyncIterator

DONE = b"[DONE]"


class EventTooLarge(Exception):
    """An event is larger than the cap."""


async def event_data(parts: AsyncIterator[bytes], *, n_max_bytes: int) -> AsyncGenerator[bytes]:
    """Yield the data of every event up to `[DONE]`; names of events, ids and comments are passed over.

    Raises:
        EventTooLarge: one is larger than the cap.
    """
    rest = b""
    data: list[bytes] = []
    async for part in parts:
        # Split at line feeds alone: a JSON text may hold every other character that ends a line elsewhere.
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > n_max_bytes:
            raise EventTooLarge
        for line in lines:
            said = line.removesuffix(b"\r")
            if said.startswith(b"data:"):
                data.append(said[5:].removeprefix(b" "))
            elif not said and data:
                whole, data = b"\n".join(data), []
                if whole == DONE:
                    return
                yield whole
