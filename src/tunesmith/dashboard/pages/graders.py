"""The grader bench: edit a grader, run it on rows, see what its templates say and what it scores."""

import json
from collections.abc import Mapping
from typing import Any, Final

from nicegui import ui

from tunesmith.dashboard.api import Api, Refused
from tunesmith.dashboard.house import House, heading
from tunesmith.dashboard.shapes import number, shortened, split

ALPHA: Final = "/v1/fine_tuning/alpha/graders"
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
        with house.frame("Graders", api, here="/graders"):
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
            if self._api.me.changes:
                ui.button("Run", icon="play_arrow", on_click=self._run)
            else:  # grading uses the machine; what templates become costs nothing
                ui.button("Fill templates", icon="data_object", on_click=self._run)
            ui.button("Validate", on_click=self._validate).props("outline")
        self._problem = ui.label().classes("text-negative whitespace-pre-wrap").props("role=alert")
        self._told = ui.column().classes("w-full gap-2")

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
            await self._api.call("POST", f"{ALPHA}/validate", {"grader": grader})
        except Refused as error:
            self._problem.text = str(error)
            return
        ui.notify("The grader is valid.", type="positive")

    async def _run(self) -> None:
        self._problem.text = ""
        self._told.clear()
        grader = self._said()
        if grader is None:
            return
        lines = [line for line in (self._rows.value or "").splitlines() if line.strip()]
        for place, line in enumerate(lines, 1):
            try:
                said = json.loads(line)
                body = {"grader": grader, "model_sample": said["sample"], "item": said.get("item") or {}}
            except (ValueError, KeyError, TypeError):
                self._problem.text = f'Row {place} is not {{"sample": "…", "item": {{…}}}}.'
                return
            try:
                filled = (await self._api.call("POST", "/tunesmith/v1/graders/templates", body))["data"]
                grade = await self._api.call("POST", f"{ALPHA}/run", body) if self._api.me.changes else None
            except Refused as error:
                self._problem.text = str(error)
                return
            with self._told:
                _draw(place, str(said["sample"]), filled, grade)


def _draw(place: int, sample: str, filled: list[Mapping[str, Any]], grade: Mapping[str, Any] | None) -> None:
    """Draw a row: its reward, and by grader what was filled in and what it scored."""
    told: Mapping[str, Any] = {"scores": {}, "errors": {}} if grade is None else grade["metadata"]
    with ui.card().classes("w-full gap-2").props("flat bordered"):
        with ui.row().classes("items-center gap-3"):
            ui.label(f"Row {place}").classes("font-semibold")
            if grade is not None:
                ui.badge(f"reward {number(grade['reward'])}").props("color=teal-9").classes("px-2 py-1")
                ui.label(f"{told['execution_time'] * 1000:.3g} ms").classes("text-sm opacity-80")
        ui.label(shortened(sample)).classes("whitespace-pre-wrap break-words")
        for flag, value in told["errors"].items():
            if value is True:
                why = told["errors"].get(f"{flag}_details") or ""
                ui.label(f"{flag}: {why}").classes("text-negative text-sm whitespace-pre-wrap break-words")
        by_grader = dict[str, list[tuple[str, Mapping[str, Any]]]]()
        for template in filled:
            name, field = split(template["field"])
            by_grader.setdefault(name, []).extend((field, value) for value in template["values"])
        for name in dict.fromkeys((*told["scores"], *by_grader)):
            if name:
                score = told["scores"].get(name)
                ui.label(name if score is None else f"{name} scores {number(score)}").classes("text-sm font-medium")
            with ui.element("dl").classes("grid gap-x-4 gap-y-1 text-sm w-full template-values"):
                for field, value in by_grader.get(name, ()):
                    with ui.element("dt"):
                        ui.label(field).classes("text-xs opacity-80")
                        ui.label(f"{{{{ {value['path']} }}}}").classes("font-mono break-all")
                    with ui.element("dd").classes("min-w-0"):
                        text = value["error"] if value["text"] is None else shortened(value["text"])
                        shown = ui.label(text or "(empty)").classes("font-mono whitespace-pre-wrap break-words")
                        if value["text"] is None:
                            shown.classes("text-negative")
