"""A job's page: what it is, how far it is, what may be done with it; the panels below it lie in a file of their own."""

import json
import time
from functools import partial
from typing import Any, Final

from nicegui import ui

from tunesmith.dashboard.api import Api, Refused, path_of
from tunesmith.dashboard.house import House, every, heading, sure, tell, verbatim
from tunesmith.dashboard.pages.files import fetch
from tunesmith.dashboard.pages.job_panels import Answers, Checkpoints, Curves, Events, Panel, Rollouts
from tunesmith.dashboard.shapes import COLORS, UNFINISHED, lasting, left, name_of, number, took, when

#: What a verb does, told before it is done.
QUESTIONS: Final = {
    "pause": "Pause this job? It writes a checkpoint after its current step, frees its slot, and can be resumed from there.",
    "resume": "Resume this job? It waits for its turn and goes on from its last checkpoint, as if it had never stopped.",
    "cancel": "Cancel this job? It ends at once and for good; its complete checkpoints stay and can be used.",
}
ALLOWED: Final = {
    "cancel": UNFINISHED,
    "pause": ("validating_files", "queued", "running"),
    "resume": ("paused",),
}


def add(house: House) -> None:
    """Give the page its path."""

    @ui.page("/jobs/{job_id}")
    async def job(job_id: str) -> None:
        api = await house.enter()
        if api is None:
            return
        with house.frame("Job", api, here="/"):
            try:
                found = await api.get(path_of("v1", "fine_tuning", "jobs", job_id))
            except Refused as error:
                heading("No such job")
                ui.label(str(error))
                return
            ui.page_title(f"{name_of(found)} · Tunesmith")
            await _Page(api, found).draw()


class _Page:
    def __init__(self, api: Api, job: dict[str, Any]) -> None:
        self._api = api
        self._job = job
        self._details: dict[str, Any] = {}
        self._waits = ""

    async def draw(self) -> None:
        with ui.row().classes("w-full items-center gap-3"):
            heading(name_of(self._job))
            self._badge = ui.badge().classes("px-2 py-1")
            ui.space()
            self._buttons = {
                verb: ui.button(verb.capitalize(), on_click=partial(self._do, verb)).props(
                    "outline" + (" color=negative" if verb == "cancel" else "")
                )
                for verb in QUESTIONS
            }
        with ui.row().classes("w-full items-center gap-3"):
            self._bar = ui.linear_progress(show_value=False).classes("flex-1").props('aria-label="Progress" size=10px')
            self._progress = ui.label().classes("text-sm tabular-nums")
        self._note = ui.label().classes("text-sm").props("role=status")
        self._error = ui.label().classes("text-negative whitespace-pre-wrap").props("role=alert")
        self._facts = ui.element("dl").classes("w-full text-sm gap-x-8 lg:columns-2")
        self._drawn: object = None
        panels: list[Panel] = [Curves(self._api, self._job), Events(self._api, self._job), Checkpoints(self._api, self._job)]
        if self._job["method"]["type"] == "reinforcement":
            panels.append(Rollouts(self._api, self._job))
        panels.append(Answers(self._api, self._job))
        with ui.tabs().classes("w-full").props("align=left inline-label mobile-arrows outside-arrows") as tabs:
            for panel in panels:
                ui.tab(panel.name, icon=panel.icon)
            ui.tab("Parameters", icon="list")
        with ui.tab_panels(tabs, value=panels[0].name, animated=False).classes("w-full bg-transparent") as shown:
            for panel in panels:
                with ui.tab_panel(panel.name).classes("px-0"):
                    panel.draw()
            with ui.tab_panel("Parameters").classes("px-0"):
                self._parameters = ui.column().classes("w-full")

        async def look() -> None:
            await self._look()
            for panel in panels:
                if panel.name == shown.value:
                    await panel.look(self._job)

        shown.on_value_change(look)
        every(1.0, look)

    async def _look(self) -> None:
        name = self._job["id"]
        old = self._job["status"] not in UNFINISHED
        fresh_s = 10.0 if old else 0.9
        self._job = await self._api.get(path_of("v1", "fine_tuning", "jobs", name), fresh_s)
        self._details = await self._api.get(path_of("tunesmith", "v1", "fine_tuning", "jobs", name), fresh_s)
        self._waits = ""
        if self._job["status"] in ("queued", "validating_files"):
            place = await self._api.get(path_of("tunesmith", "v1", "fine_tuning", "jobs", name, "queue"))
            self._waits = place["message"]
        self._show()

    def _show(self) -> None:
        job, details = self._job, self._details
        status = job["status"]
        self._badge.text = status
        self._badge.props(f"color={COLORS.get(status, 'grey-8')}")
        for verb, button in self._buttons.items():
            button.visible = self._api.me.changes and status in ALLOWED[verb]
        step, total = details.get("step") or 0, details.get("total_steps")
        self._bar.value = step / total if total else 0.0
        rest = left(job, time.time())
        self._progress.text = (f"step {step:,} of {total:,}" if total else "") + (f" · {rest} remaining" if rest else "")
        for label, text in ((self._note, self._waits), (self._error, (job["error"] or {}).get("message") or "")):
            label.text, label.visible = text, bool(text)
        facts = self._told()
        if facts != self._drawn:
            self._drawn = facts
            self._facts.clear()
            with self._facts:
                for term, value in facts:
                    with ui.element("div").classes("flex no-wrap gap-x-4 py-0.5 break-inside-avoid"):
                        ui.element("dt").classes("opacity-70 w-36 shrink-0").props(f'innerText="{term}"')
                        with ui.element("dd").classes("min-w-0 break-all"):
                            _value(term, value, asks=self._api.me.changes)
            self._draw_parameters()

    def _told(self) -> list[tuple[str, Any]]:
        job, details = self._job, self._details
        counts = details.get("counts") or {}
        facts = [
            ("Id", job["id"]),
            ("Method", job["method"]["type"]),
            ("Model", job["model"]),
            ("Tuned model", job["fine_tuned_model"]),
            ("Created", when(job["created_at"])),
            ("Finished", when(job["finished_at"])),
            ("Took", lasting(took(job, time.time())) if job["finished_at"] else ""),
            ("Examples", number(counts.get("n_examples"))),
            ("Validation examples", number(counts.get("n_validation_examples") or None)),
            ("Tokens trained", number(job["trained_tokens"])),
            ("Training file", job["training_file"]),
            ("Validation file", job["validation_file"]),
            ("Metadata", ", ".join(f"{key}={value}" for key, value in (job["metadata"] or {}).items())),
            ("Lost attempts", number(details.get("lost_attempts") or None)),
            ("Result file", job["result_files"]),
        ]
        return [(term, value) for term, value in facts if value]

    def _draw_parameters(self) -> None:
        asked, resolved = self._details.get("requested") or {}, self._details.get("resolved") or {}
        rows = [
            {"name": name, "asked": _written(value), "used": _written(resolved.get(name, value))}
            for name, value in asked.items()
        ]
        columns = [
            {"name": key, "label": label, "field": key, "align": "left"}
            for key, label in (("name", "Hyperparameter"), ("asked", "Requested"), ("used", "Resolved"))
        ]
        self._parameters.clear()
        with self._parameters:
            ui.table(columns=columns, rows=rows, row_key="name").classes("w-full").props("flat bordered hide-pagination")
            ui.label(f"Seed {self._job['seed']}").classes("text-sm")
            grader = self._job["method"].get("reinforcement", {}).get("grader")
            if grader:
                ui.label("Grader").classes("font-semibold")
                verbatim(json.dumps(grader, indent=2, ensure_ascii=False))

    async def _do(self, verb: str) -> None:
        if not await sure(QUESTIONS[verb], verb.capitalize(), color="negative" if verb == "cancel" else "primary"):
            return
        try:
            self._job = await self._api.call("POST", path_of("v1", "fine_tuning", "jobs", self._job["id"], verb))
        except Refused as error:
            tell(error)
            return
        ui.notify(f"The job is {self._job['status']}.", type="info")
        self._show()


def _value(term: str, value: Any, *, asks: bool) -> None:
    if term == "Tuned model":
        with ui.row().classes("items-center gap-2"):
            ui.label(value).classes("font-mono break-all")
            if asks:
                ui.link("Try it", f"/playground?right={value}")
    elif term == "Result file":
        for file in value:
            with ui.row().classes("items-center gap-2"):
                ui.link(file, f"/files/{file}/content", new_tab=True)
                ui.button("Download", icon="download", on_click=partial(fetch, file)).props("flat dense no-caps size=sm")
    elif term in ("Training file", "Validation file"):
        ui.link(value, f"/files?open={value}")
    else:
        ui.label(str(value)).classes("font-mono" if term == "Id" else "")


def _written(value: object) -> str:
    return value if isinstance(value, str) else number(value)
