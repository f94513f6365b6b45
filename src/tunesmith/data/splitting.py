"""Which rows of a file go into its validation part: by seed and content, so that rows that say the same stay together."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

from tunesmith.data.jsonl import Line, NotJson, Stream, parse_object, read_lines

_N: Final = 1 << 64


def key_of(row: dict[str, Any]) -> bytes:
    """Return what rows that say the same have in common, whatever the order of their keys."""
    return hashlib.blake2b(json.dumps(row, sort_keys=True).encode(), digest_size=16).digest()


def rank(key: bytes, seed: int) -> int:
    """Return where the draw puts a row: the lowest ranks are the validation part."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, salt=seed.to_bytes(16, "little")).digest(), "little")


def rows(stream: Stream, *, max_line_bytes: int) -> Iterator[tuple[Line, dict[str, Any]]]:
    """Yield the rows of a file with their lines.

    Raises:
        NotJson: a line is none; the message begins with its number.
    """
    for line in read_lines(stream, max_line_bytes=max_line_bytes):
        try:
            yield line, parse_object(line, max_line_bytes=max_line_bytes)
        except NotJson as error:
            raise NotJson(f"Line {line.number} {error}") from error


def threshold(stream: Stream, *, fraction: float, seed: int, max_line_bytes: int) -> tuple[int, int, int]:
    """Return the rank below which a row is of the validation part, and how many rows the parts have: training, validation.

    As near to the fraction as rows that stay together allow; each part has one row at least.

    Raises:
        NotJson: a line is none.
        ValueError: the file has fewer than two rows that differ.
    """
    counts: dict[int, int] = {}
    for _, row in rows(stream, max_line_bytes=max_line_bytes):
        place = rank(key_of(row), seed)
        counts[place] = counts.get(place, 0) + 1
    if len(counts) < 2:
        raise ValueError("it has fewer than two rows that differ")
    n_rows = sum(counts.values())
    ranks = sorted(counts)
    n_valid = counts[ranks[0]]
    for index in range(1, len(ranks) - 1):
        n_more = n_valid + counts[ranks[index]]
        if abs(n_more - fraction * n_rows) > abs(n_valid - fraction * n_rows):
            return ranks[index], n_rows - n_valid, n_valid
        n_valid = n_more
    return ranks[-1], n_rows - n_valid, n_valid
