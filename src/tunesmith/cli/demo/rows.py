"""The files of the demonstration: rows of JSON, one a line, and the three sets that they are of."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sets(Generic[T]):
    """Three sets that have nothing in common."""

    training: tuple[T, ...]
    validation: tuple[T, ...]
    held_out: tuple[T, ...]


def split(drawn: Sequence[T], n_training: int, n_validation: int, n_held_out: int) -> Sets[T]:
    """Return the first ones as three sets, in the order of their drawing."""
    end = n_training + n_validation
    return Sets(tuple(drawn[:n_training]), tuple(drawn[n_training:end]), tuple(drawn[end : end + n_held_out]))


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write a file: one row of JSON a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
