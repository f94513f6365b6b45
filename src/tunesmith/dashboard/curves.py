"""Curves of a job's metrics: which belong into one chart, smoothed, as ECharts draws them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

#: Charts in order: title and the columns whose names begin so; what fits nowhere is a chart of its own kind at the end.
CHARTS: Final = (
    ("Reward", ("train_mean_reward", "valid_reward_mean", "full_valid_mean_reward")),
    ("Loss", ("train_loss", "valid_loss", "full_valid_loss", "train_nll_loss")),
    (
        "Accuracy",
        ("train_accuracy", "valid_mean_token_accuracy", "full_valid_mean_token_accuracy", "train_reward_accuracy",
         "valid_reward_accuracy", "full_valid_reward_accuracy"),
    ),
    ("Reward margin", ("train_reward_margin", "valid_reward_margin", "full_valid_reward_margin")),
    ("Tokens per answer", ("completion_tokens_mean", "reasoning_tokens_mean", "valid_completion_tokens_mean")),
    ("Gap between trainer and sampler", ("sampler_logp_gap",)),
)  # fmt: skip
#: Colours that are told apart in light and dark, and by most who see colours differently.
PALETTE: Final = ("#0f8a7f", "#d97706", "#6366f1", "#db2777", "#65a30d", "#0284c7", "#a16207", "#9333ea")
#: A validation metric is a mark now and then, not a line at every step.
RARE: Final = 200
#: Read on light and on dark.
_GREY: Final = "#7b818a"
_DASHES: Final = (("full_valid", "dotted"), ("valid", "dashed"))


def smoothed(points: Sequence[Sequence[float]], weight: float) -> list[list[float]]:
    """Return (step, value) pairs under an exponential moving average, `weight` in [0, 1) on the past, without its bias."""
    if weight <= 0:
        return [list(point) for point in points]
    mean, mass, out = 0.0, 0.0, list[list[float]]()
    for step, value in points:
        mean = weight * mean + (1 - weight) * value
        mass = weight * mass + (1 - weight)
        out.append([step, mean / mass])
    return out


def points(curves: Mapping[str, Any], column: str) -> list[list[float]]:
    """Return a column's (step, value) pairs."""
    if column not in curves["columns"]:
        return []
    index = curves["columns"].index(column)
    return [[row[0], row[index]] for row in curves["rows"] if row[index] is not None]


def charts(runs: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return the charts that the runs' columns fill: title and columns."""
    have = {column for curves in runs.values() for column in curves["columns"]}
    return [(title, shown) for title, columns in CHARTS if (shown := [column for column in columns if column in have])]


class Drawings:
    """What ECharts draws, as JSON, made once for all who look at the same answers."""

    def __init__(self, most: int = 16) -> None:
        self._most = most
        #: The answers are kept beside what was made of them, so that no other object takes their identity meanwhile.
        self._made: dict[tuple[object, ...], tuple[list[Mapping[str, Any]], str]] = {}

    def text(self, title: str, columns: Sequence[str], runs: Mapping[str, Mapping[str, Any]], weight: float) -> str:
        """Return what `option` does as a JSON text, for the same answers the same one."""
        name = (title, *columns, weight, *runs, *map(id, runs.values()))
        if name not in self._made:
            while len(self._made) >= self._most:
                del self._made[next(iter(self._made))]
            self._made[name] = ([*runs.values()], json.dumps(option(title, columns, runs, weight)))
        return self._made[name][1]


def option(title: str, columns: Sequence[str], runs: Mapping[str, Mapping[str, Any]], weight: float) -> dict[str, Any]:
    """Return what ECharts draws: every column of every run as a line.

    One run has a colour for each of its columns, several have one each; what is validated is dashed or dotted.
    """
    series: list[dict[str, Any]] = []
    several = len(runs) > 1
    for run, (name, curves) in enumerate(runs.items()):
        drawn = set[str]()
        for place, column in enumerate(columns):
            found = points(curves, column)
            if not found:
                continue
            training = column.startswith("train") or "valid" not in column
            color = PALETTE[(run if several else place) % len(PALETTE)]
            dashes = next((dashes for begin, dashes in _DASHES if column.startswith(begin)), "solid")
            series.append(
                {
                    "name": f"{name} · {column}" if several else column,
                    "type": "line",
                    "data": [[step, _short(value)] for step, value in (smoothed(found, weight) if training else found)],
                    "showSymbol": not training and len(found) <= RARE,
                    "symbolSize": 6,
                    "lineStyle": {"width": 1.5, "type": dashes, "opacity": 0.5 if several and dashes in drawn else 1},
                    "itemStyle": {"color": color},
                    "connectNulls": True,
                }
            )
            drawn.add(dashes)
    return {
        "title": {"text": title, "left": 8, "textStyle": {"fontSize": 14, "color": _GREY}},
        "animation": False,
        "aria": {"enabled": True},
        "grid": {"left": 56, "right": 20, "top": 64, "bottom": 56},
        "legend": {
            "top": 28, "left": 8, "type": "scroll", "textStyle": {"color": _GREY}, "pageTextStyle": {"color": _GREY},
            "itemStyle": {"opacity": 0},
        },
        "tooltip": {"trigger": "axis", "confine": True},
        "dataZoom": [{"type": "inside"}, {"type": "slider", "height": 16, "bottom": 8}],
        "xAxis": {
            "type": "value", "min": "dataMin", "max": "dataMax", "minInterval": 1, "splitLine": {"show": False},
            "axisLabel": {"color": _GREY}, "axisPointer": {"label": {"precision": 0, "formatter": "step {value}"}},
        },
        "yAxis": {
            "type": "value", "scale": True, "splitLine": {"lineStyle": {"color": "rgba(128,128,128,0.2)"}},
            "axisLabel": {"color": _GREY},
        },
        "series": series,
    }  # fmt: skip


def _short(value: float) -> float:
    """Return a value as exactly as a screen can show it: a curve is sent to everybody who looks."""
    return float(f"{value:.6g}")
