"""The result file of a job: one CSV row a step, OpenAI's recorded columns first and ours after them."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

FILENAME: Final = "step_metrics.csv"
PURPOSE: Final = "fine-tune-results"

#: Column and the metric it shows.
COLUMNS: Final = (
    ("step", "step"),
    ("train_loss", "train_loss"),
    ("train_accuracy", "train_mean_token_accuracy"),
    ("valid_loss", "valid_loss"),
    ("valid_mean_token_accuracy", "valid_mean_token_accuracy"),
    ("train_mean_token_accuracy", "train_mean_token_accuracy"),
    ("full_valid_loss", "full_valid_loss"),
    ("full_valid_mean_token_accuracy", "full_valid_mean_token_accuracy"),
)


def results_csv(rows: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[bytes]:
    """Yield the lines of the file; `rows` are the steps with their metrics. What was not measured is an empty cell."""
    yield (",".join(column for column, _ in COLUMNS) + "\n").encode()
    for step, values in rows:
        yield (",".join(_cell({**values, "step": step}.get(metric)) for _, metric in COLUMNS) + "\n").encode()


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.5f}" if isinstance(value, float) else str(value)
