# pyright: basic
"""How the rows of a product are cut: each adapter's by themselves, and on a CPU into blocks that its cache holds.

A CPU makes a program for every size of a product in bf16; blocks have few sizes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tunesmith.lm.lora import Span

#: Rows of a block, from large to small; the last one takes what is left.
SIZES: Final = (768, 512, 256, 128, 64)


@dataclass(frozen=True, slots=True)
class Block:
    """Rows `start` to `stop`, all of one adapter (None: of the bare base)."""

    start: int
    stop: int
    adapter: int | None


def blocks(n_rows: int, spans: tuple[Span, ...]) -> Iterator[Block]:
    """Cut rows by spans, and those of each span into blocks."""
    owners = {span.start: span.adapter for span in spans if span.start < span.stop}
    edges = sorted({0, n_rows, *(edge for span in spans for edge in (span.start, span.stop))})
    for first, last in pairwise(edges):
        start = first
        while start < last:
            size = next((size for size in SIZES if size <= last - start), last - start)
            yield Block(start, start + size, owners.get(first))
            start += size
