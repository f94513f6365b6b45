"""The grader bench: edit a grader, run it on rows, see what its templates say and what it scores."""

import json
from typing import Any, Final

from nicegui import ui

from tunesmith.dashboard.api import Api, Refused
from tunesmith.dashboard.house import House, heading
from tunesmith.dashboard.shapes import number

EXAMPLE: Final = {
    "type": "string_check",
    "name": "exact",
    "operation": "eq",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
}
ROWS: Final = '{"sample": "Paris", "item": {"answer": "Paris"}}\n{"sample": "It is Lyon.", "item": {"answer": "Paris"}}'


def add(house: House) -> None:
    """Give the page its path."""

    @ui.page("/graders")
    async def graders() -> None:
        api = await house.enter()
        if api is None:
            return
        with house.frame("Graders", here="/graders"):
            _Bench(api).draw()


def code(label: str, text: str) -> ui.textarea:
    """Return a field for JSON."""
    return (
        ui.textarea(label, value=text)
        .classes("w-full font-mono text-sm")
        .props('outlined autogrow input-style="min-height: 16rem" spellcheck=false')
    )


class _Bench:
    def __init__(self, api: Api) -> None:
        self._api = api

    def draw(self) -> None:
        heading("Grader bench")
        ui.label("A grader and the rows that it is tried on: a line each, with the model's answer and the row's item.")
        with ui.element("div").classes("grid grid-cols-1 lg:grid-cols-2 gap-4 w-full"):
            with ui.column().classes("w-full"):
                self._grader = code("Grader (JSON)", json.dumps(EXAMPLE, indent=2))
            with ui.column().classes("w-full"):
                self._rows = code("Rows (JSONL)", ROWS)
        with ui.row():
            ui.button("Run", icon="play_arrow", on_click=self._run)
            ui.button("Validate", on_click=self._validate).props("outline")
        self._problem = ui.label().classes("text-negative whitespace-pre-wrap").props("role=alert")
        columns = [
            {"name": key, "label": label, "field": key, "align": "left"}
            for key, label in (
                ("row", "Row"), ("sample", "Sample"), ("reward", "Reward"), ("scores", "Scores"),
                ("took", "Took"), ("errors", "Errors"),
            )
        ]  # fmt: skip
        self._table = ui.table(columns=columns, rows=[], row_key="row").classes("w-full")
        self._table.props('flat bordered wrap-cells hide-pagination no-data-label="Nothing run yet."')

    def _said(self) -> dict[str, Any] | None:
        try:
            return json.loads(self._grader.value or "")
        except ValueError as error:
            self._problem.text = f"The grader is not JSON: {error}"
            return None

    async def _validate(self) -> None:
        self._problem.text = ""
        grader = self._said()
        if grader is None:
            return
        try:
            await self._api.call("POST", "/v1/fine_tuning/alpha/graders/validate", {"grader": grader})
        except Refused as error:
            self._problem.text = str(error)
            return
        ui.notify("The grader is valid.", type="positive")

    async def _run(self) -> None:
        self._problem.text = ""
        grader = self._said()
        if grader is None:
            return
        rows: list[dict[str, Any]] = []
        self._table.rows = rows
        lines = [line for line in (self._rows.value or "").splitlines() if line.strip()]
        for number_, line in enumerate(lines, 1):
            try:
                said = json.loads(line)
                body = {"grader": grader, "model_sample": said["sample"], "item": said.get("item") or {}}
            except (ValueError, KeyError, TypeError):
                self._problem.text = f'Row {number_} is not {{"sample": "…", "item": {{…}}}}.'
                return
            try:
                answer = await self._api.call("POST", "/v1/fine_tuning/alpha/graders/run", body)
            except Refused as error:
                self._problem.text = str(error)
                return
            rows.append(_row(number_, str(said["sample"]), answer))
            self._table.rows = list(rows)


def _row(number_: int, sample: str, answer: dict[str, Any]) -> dict[str, Any]:
    told = answer["metadata"]
    errors = [
        f"{flag}: {told['errors'].get(f'{flag}_details') or ''}" for flag, value in told["errors"].items() if value is True
    ]
    return {
        "row": number_,
        "sample": sample,
        "reward": number(answer["reward"]),
        "scores": ", ".join(f"{name} {number(score)}" for name, score in told["scores"].items()),
        "took": f"{told['execution_time'] * 1000:.0f} ms",
        "errors": "\n".join(errors),
    }
