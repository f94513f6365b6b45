"""Server-sent events, however their bytes are cut up."""

from collections.abc import AsyncIterator

import pytest

from tunesmith.inference.events import EventTooLarge, event_data

pytestmark = pytest.mark.anyio

SENT = (
    b': hello\n\ndata: {"a": "\xe2\x80\xa8\x0c\xc2\x85"}\r\n\r\n'
    b"event: x\nid: 7\ndata:two\ndata: lines\n\n\n\ndata: [DONE]\n\ndata: more\n\n"
)
DATA = [b'{"a": "\xe2\x80\xa8\x0c\xc2\x85"}', b"two\nlines"]


async def pieces(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_events_are_whole_whatever_the_pieces(size: int) -> None:
    assert [data async for data in event_data(pieces(SENT, size), n_max_bytes=100)] == DATA


async def test_an_event_that_does_not_end_is_none() -> None:
    assert [data async for data in event_data(pieces(b"data: a\n\ndata: b\n", 3), n_max_bytes=100)] == [b"a"]


async def test_an_event_has_a_cap() -> None:
    with pytest.raises(EventTooLarge):
        [data async for data in event_data(pieces(b"data: " + b"x" * 100, 10), n_max_bytes=50)]
