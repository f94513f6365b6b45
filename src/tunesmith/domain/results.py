"""The result file of a job: one CSV row a step; columns known from OpenAI and Azure first, then ours, by method."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

FILENAME: Final = "step_metrics.csv"
PURPOSE: Final = "fine-tune-results"

Column = tuple[str, tuple[str, ...]]

_SUPERVISED: Final[tuple[Column, ...]] = (
    ("train_loss", ("train_loss",)),
    ("train_accuracy", ("train_mean_token_accuracy",)),
    ("valid_loss", ("valid_loss",)),
    ("valid_mean_token_accuracy", ("valid_mean_token_accuracy",)),
    ("train_mean_token_accuracy", ("train_mean_token_accuracy",)),
    ("full_valid_loss", ("full_valid_loss",)),
    ("full_valid_mean_token_accuracy", ("full_valid_mean_token_accuracy",)),
)
_DPO: Final[tuple[Column, ...]] = tuple(
    (name, (name,))
    for name in (
        "train_loss",
        "train_reward_margin",
        "train_reward_accuracy",
        "valid_loss",
        "valid_reward_margin",
        "valid_reward_accuracy",
        "full_valid_loss",
        "full_valid_reward_margin",
        "full_valid_reward_accuracy",
        "train_nll_loss",
    )
)
_REINFORCEMENT: Final[tuple[Column, ...]] = (
    ("train_mean_reward", ("train_mean_reward",)),
    ("full_valid_mean_reward", ("full_valid_mean_reward",)),
    ("completion_tokens_mean", ("completion_tokens_mean",)),
    ("reasoning_tokens_mean", ("reasoning_tokens_mean",)),
    ("mean_unresponsive_rewards", ("mean_unresponsive_rewards",)),
    ("sampling_duration", ("timing", "step", "sampling")),
    ("training_duration", ("timing", "step", "training")),
    ("eval_duration", ("timing", "step", "eval")),
    ("total_duration", ("timing", "step", "full_iteration")),
)
#: What only this server tells of a reinforcement step; behind the columns of its graders.
_REINFORCEMENT_OURS: Final[tuple[Column, ...]] = tuple(
    (name, (name,))
    for name in (
        "full_valid_mean_parse_error",
        "valid_reward_mean",
        "valid_completion_tokens_mean",
        "valid_reasoning_tokens_mean",
        "train_loss",
        "sampler_logp_gap",
    )
)
#: The parts of a reinforcement step's metrics that are lists of graders, and where their columns begin and go on.
_BY_GRADER: Final = (("scores", "{type}/{name}/{key}"), ("errors", "{type}/{name}/errors/{key}"))


def results_csv(method: str, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> Iterator[bytes]:
    """Yield the lines of the file; `rows` are the steps with their metrics. What was not measured is an empty cell."""
    columns, cells = table(method, rows)
    yield _line(["step", *columns])
    for row in cells:
        yield _line(map(_cell, row))


def table(method: str, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> tuple[list[str], list[list[Any]]]:
    """Return the columns' names, and for each step the step and then a value, or None, for each column."""
    columns = _columns(method, [values for _, values in rows])
    cells: list[list[Any]] = []
    for step, values in rows:
        told = by_grader(values) if method == "reinforcement" else {}
        cells.append([step, *(told.get(name) if path is None else _at(values, path) for name, path in columns.items())])
    return list(columns), cells


def _columns(method: str, rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...] | None]:
    """Return the columns with their way into the metrics; None for those of graders, which depend on what the rows hold."""
    if method != "reinforcement":
        return dict(_DPO if method == "dpo" else _SUPERVISED)
    of_graders = dict.fromkeys(name for values in rows for name in by_grader(values))
    return {**dict(_REINFORCEMENT), **of_graders, **dict(_REINFORCEMENT_OURS)}


def by_grader(values: Mapping[str, Any]) -> dict[str, object]:
    """Return what a step's metrics say of each grader, by column."""
    found: dict[str, object] = {}
    for part, rest in _BY_GRADER:
        graders: object = _at(values, (part, "graders"))
        for grader in cast("list[dict[str, Any]]", graders) if isinstance(graders, list) else []:
            for key, value in grader.items():
                if key.endswith("_mean"):
                    name = rest.format(type=grader.get("type"), name=grader.get("name"), key=key)
                    found[f"{part}/graders/{name}"] = value
    return found


def _at(values: object, path: Sequence[str]) -> object:
    for key in path:
        values = cast("Mapping[str, object]", values).get(key) if isinstance(values, Mapping) else None
    return values


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.5f}" if isinstance(value, float) else str(value)


def _line(cells: Iterable[str]) -> bytes:
    """Return a line of the file; a grader may be called anything, and is then quoted."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8", "backslashreplace")
