"""Curves in a terminal, of Unicode alone: a sparkline in a line, and charts of a job's metrics."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

#: Charts in order: their names, and the columns of training and of validation; the first that have values are drawn.
CHARTS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "reward": (("train_mean_reward",), ("full_valid_mean_reward", "valid_reward_mean")),
    "loss": (("train_loss",), ("full_valid_loss", "valid_loss")),
    "accuracy": (
        ("train_accuracy", "train_mean_token_accuracy", "train_reward_accuracy"),
        (
            "full_valid_mean_token_accuracy",
            "valid_mean_token_accuracy",
            "full_valid_reward_accuracy",
            "valid_reward_accuracy",
        ),
    ),
    "margin": (("train_reward_margin",), ("full_valid_reward_margin", "valid_reward_margin")),
}
_BARS: Final = "▁▂▃▄▅▆▇█"
#: The dots of a braille character by column and row.
_DOTS: Final = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_MARK: Final = "●"


def sparkline(values: Sequence[float], width: int) -> str:
    """Return values as bars, averaged to the width."""
    if not values or width < 1:
        return ""
    n = min(width, len(values))
    bounds = [index * len(values) // n for index in range(n + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(bounds)]
    low, high = min(means), max(means)
    return "".join(_BARS[round((mean - low) / (high - low) * 7) if high > low else 3] for mean in means)


def points(curves: dict[str, Any], column: str) -> list[tuple[float, float]]:
    """Return a column's steps and values."""
    if column not in curves["columns"]:
        return []
    index = curves["columns"].index(column)
    return [(row[0], row[index]) for row in curves["rows"] if row[index] is not None]


def charts(curves: dict[str, Any]) -> list[tuple[str, str | None, str | None]]:
    """Return the charts that a job's metrics fill: the name, the column of training and that of validation."""
    found: list[tuple[str, str | None, str | None]] = []
    for name, sides in CHARTS.items():
        training, validation = (next((each for each in side if points(curves, each)), None) for side in sides)
        if training is not None or validation is not None:
            found.append((name, training, validation))
    return found


def finals(curves: dict[str, Any]) -> dict[str, float]:
    """Return the last value of every column that has a chart."""
    columns = [column for _, *sides in charts(curves) for column in sides if column is not None]
    return {column: points(curves, column)[-1][1] for column in columns}


def chart(
    line: Sequence[tuple[float, float]], marks: Sequence[tuple[float, float]], *, width: int, height: int
) -> list[str]:
    """Return a line and marks in one chart, with the axes' ends at its edges."""
    everything = [*line, *marks]
    steps, values = [step for step, _ in everything], [value for _, value in everything]
    left, right, low, high = min(steps), max(steps), min(values), max(values)
    labels = [f"{high:.4g}", f"{(high + low) / 2:.4g}", f"{low:.4g}"]
    margin = max(map(len, labels))
    columns = max(10, width - margin - 2)

    def place(step: float, value: float) -> tuple[int, int]:
        x = round((step - left) / ((right - left) or 1) * (2 * columns - 1))
        y = round((high - value) / ((high - low) or 1) * (4 * height - 1)) if high > low else 2 * height
        return x, y

    grid = [[0] * columns for _ in range(height)]
    before: tuple[int, int] | None = None
    for x, y in (place(*point) for point in line):
        for px, py in _between(before, (x, y)):
            grid[py // 4][px // 2] |= _DOTS[px % 2][py % 4]
        before = (x, y)
    cells = [[chr(0x2800 + dots) if dots else " " for dots in row] for row in grid]
    for x, y in (place(*point) for point in marks):
        cells[y // 4][x // 2] = _MARK
    at = {height // 2: labels[1]} | ({0: labels[0], height - 1: labels[2]} if high > low else {})
    lines = [f"{at.get(number, ''):>{margin}} ┤{''.join(row).rstrip()}" for number, row in enumerate(cells)]
    first, last = f"{left:g}", f"{right:g}"
    lines.append(f"{'':>{margin}} └{'─' * columns}")
    lines.append(f"{'':>{margin}}  {first}{last:>{max(1, columns - len(first))}}")
    return lines


def _between(start: tuple[int, int] | None, end: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the dots of a straight line; the first point is a dot alone."""
    if start is None:
        return [end]
    n = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    return [
        (round(start[0] + (end[0] - start[0]) * i / n), round(start[1] + (end[1] - start[1]) * i / n))
        for i in range(1, n + 1)
    ]
