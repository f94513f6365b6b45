"""What a dry run says of a job to be: what it takes, what is wrong with its files, what its grader makes of some rows."""

import json
from collections.abc import Mapping
from typing import Any, Final

from nicegui import ui

from tunesmith.dashboard.house import section
from tunesmith.dashboard.shapes import lasting, number, size

#: How many bad rows are listed.
N_ERRORS: Final = 50
N_ROWS: Final = 10


def draw(found: Mapping[str, Any]) -> None:
    """Draw the answer of a dry run."""
    section("What it will be" if found["valid"] else "What is wrong")
    words = "This job can run." if found["valid"] else str((found["error"] or {}).get("message") or "This job would fail.")
    ui.label(words).classes("text-positive" if found["valid"] else "text-negative").props("role=status")
    facts = list(_facts(found))
    with ui.element("dl").classes("grid gap-x-6 gap-y-1 text-sm").style("grid-template-columns: max-content 1fr"):
        for term, value in facts:
            ui.element("dt").classes("opacity-70").props(f'innerText="{term}"')
            with ui.element("dd"):
                ui.label(value)
    for warning in found["warnings"]:
        with ui.row().classes("items-start gap-2 no-wrap text-sm"):
            ui.icon("warning")
            ui.label(warning)
    if found["errors"]:
        _table(
            (("file", "File"), ("line", "Line"), ("field", "Field"), ("message", "What is wrong")),
            [
                {"file": error["param"], "line": error["line"], "field": error["field"], "message": error["message"]}
                for error in found["errors"][:N_ERRORS]
            ],
        )
        if found["n_errors"] > N_ERRORS:
            ui.label(f"{found['n_errors']:,} in all.").classes("text-sm")
    if found["grader"]:
        ui.label("What the grader makes of some rows").classes("font-semibold")
        _table(
            (("line", "Line"), ("sample", "Sample"), ("reward", "Reward"), ("errors", "Errors")),
            [
                {
                    "line": row["line"],
                    "sample": f"{row['sample']}: {row['model_sample']}" if row["model_sample"] else row["sample"],
                    "reward": number(row["reward"]),
                    "errors": json.dumps(row["errors"]) if row["errors"] else "",
                }
                for row in found["grader"]["samples"]
            ],
        )


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    estimate, cost, training = found["estimate"] or {}, found["cost"], found["training_file"] or {}
    seconds = [estimate.get(name) for name in ("seconds", "seconds_low", "seconds_high")]
    told = [
        ("Examples", number(training.get("examples"))),
        ("Tokens of a pass", number(training.get("tokens"))),
        ("Trained on of these", number(training.get("trainable_tokens") or None)),
        ("Steps", number(found["total_steps"])),
        ("Tokens in all", number(found["trained_tokens"])),
        ("Time", f"{lasting(seconds[0])} ({lasting(seconds[1])} to {lasting(seconds[2])})" if seconds[0] else ""),
        ("Memory", size(estimate.get("memory_bytes"))),
        ("Cost", f"{cost['amount']} {cost['currency']}" if cost else ""),
    ]
    return [(term, value) for term, value in told if value]


def _table(columns: tuple[tuple[str, str], ...], rows: list[dict[str, Any]]) -> None:
    told = [{"name": name, "label": label, "field": name, "align": "left"} for name, label in columns]
    numbered = [{"id": index, **row} for index, row in enumerate(rows)]
    shown = ui.table(columns=told, rows=numbered, row_key="id", pagination=N_ROWS).classes("w-full")
    shown.props("flat bordered dense wrap-cells" + (" hide-pagination" if len(rows) <= N_ROWS else ""))
