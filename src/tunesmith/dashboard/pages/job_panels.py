"""The panels of a job's page: curves, events, checkpoints, sampled answers with their grades, answers before and after."""

import json
import time
from functools import partial
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

from nicegui import ui

from tunesmith.dashboard.api import Api, Refused, path_of
from tunesmith.dashboard.curves import Drawings, charts
from tunesmith.dashboard.house import tell
from tunesmith.dashboard.pages.files import draw_message
from tunesmith.dashboard.pages.sharing import share
from tunesmith.dashboard.rows import said
from tunesmith.dashboard.shapes import UNFINISHED, name_of, number, when
from tunesmith.dashboard.widgets import act

#: How often a growing curve is drawn again.
DRAW_S = 2.0
#: Shared by all pages: many look at the same job.
_DRAWINGS = Drawings()


class Panel:
    """A part of the page that looks for news while it is shown."""

    name: ClassVar[str]
    icon: ClassVar[str]

    def __init__(self, api: Api, job: dict[str, Any]) -> None:
        self.api = api
        self.job = job
        self.seen: object = None

    def draw(self) -> None:
        """Draw the panel, empty."""
        raise NotImplementedError

    async def look(self, job: dict[str, Any]) -> None:
        """Show what is new; `job` is the job as it is now.

        Raises:
            Refused: the server does not answer, or refuses.
        """
        raise NotImplementedError

    @property
    def fresh_s(self) -> float:
        """How old an answer may be: what is finished does not change; an answer from before the end may lack the last."""
        if self.job["status"] in UNFINISHED or not self.job["finished_at"]:
            return DRAW_S
        return min(max(time.time() - self.job["finished_at"] - 1, 0.5), 30.0)

    def ours(self, *parts: str) -> str:
        """Return a path of this server's own API below the job's."""
        return path_of("tunesmith", "v1", "fine_tuning", "jobs", self.job["id"], *parts)

    def wire(self, *parts: str) -> str:
        """Return a path of OpenAI's API below the job's."""
        return path_of("v1", "fine_tuning", "jobs", self.job["id"], *parts)


class Curves(Panel):
    """Loss, accuracy and reward by step, smoothed as one likes, beside those of other jobs."""

    name = "Curves"
    icon = "show_chart"

    def draw(self) -> None:
        """Draw the panel, empty."""
        with ui.row().classes("w-full items-center gap-4"):
            ui.label("Smoothing").classes("text-sm")
            self._weight = ui.slider(min=0, max=0.99, step=0.01, value=0.0, on_change=self._redraw).classes("w-40")
            self._weight.props('label aria-label="Smoothing"')
            self._others = ui.select({}, label="Compare with", multiple=True, on_change=self._changed)
            self._others.props("dense outlined use-chips").classes("min-w-64")
        self._empty = ui.label("No step has been taken yet.").classes("text-sm opacity-70")
        self._grid = ui.element("div").classes("grid grid-cols-1 lg:grid-cols-2 gap-4 w-full overflow-hidden")
        self._charts: dict[str, ui.echart] = {}
        self._runs: dict[str, dict[str, Any]] = {}

    async def look(self, job: dict[str, Any]) -> None:
        """Show what is new."""
        self.job = job
        await self._offer()
        runs = {name_of(job): await self.api.get(self.ours("metrics"), self.fresh_s)}
        for other in self._others.value or ():
            path = path_of("tunesmith", "v1", "fine_tuning", "jobs", other, "metrics")
            runs[self._others.options[other]] = await self.api.get(path, DRAW_S)
        if [*map(id, runs.values())] != self.seen:
            self.seen = [*map(id, runs.values())]
            self._runs = runs
            self._redraw()

    async def _offer(self) -> None:
        found = await self.api.get("/v1/fine_tuning/jobs?limit=50", 20.0)
        options = {
            each["id"]: f"{name_of(each)} ({each['id'][-6:]})" for each in found["data"] if each["id"] != self.job["id"]
        }
        if options != self._others.options:
            self._others.set_options(options)

    async def _changed(self) -> None:
        try:
            await self.look(self.job)
        except Refused as error:
            tell(error)

    def _redraw(self) -> None:
        wanted = charts(self._runs)
        self._empty.visible = not any(curves["rows"] for curves in self._runs.values())
        self._empty.text = "No step was taken." if self.job["finished_at"] else "No step has been taken yet."
        if [title for title, _ in wanted] != list(self._charts):
            self._grid.clear()
            self._charts = {}
            with self._grid:
                for title, _ in wanted:
                    self._charts[title] = (
                        ui.echart({}).classes("w-full min-w-0 h-72").props(f'role=img aria-label="{title}"')
                    )
        for title, columns in wanted:
            # As a text, which the page evaluates: NiceGUI looks into every number of options that are objects.
            self._charts[title].props[":options"] = _DRAWINGS.text(title, columns, self._runs, self._weight.value or 0.0)
            self._charts[title].update()


class Events(Panel):
    """The event stream, newest first."""

    name = "Events"
    icon = "receipt_long"

    def draw(self) -> None:
        """Draw the panel, empty."""
        columns = [
            {"name": key, "label": label, "field": key, "align": "left", "classes": classes}
            for key, label, classes in (
                ("at", "Time", "whitespace-nowrap"), ("level", "Level", ""), ("message", "Message", "wrap-anywhere"),
            )
        ]  # fmt: skip
        self._steps = ui.switch("Show steps", value=True, on_change=self._show)
        self._table = ui.table(columns=columns, rows=[], row_key="id", pagination=50).classes("w-full")
        self._table.props('flat bordered dense wrap-cells no-data-label="No event yet."')
        self._events: list[dict[str, Any]] = []

    async def look(self, job: dict[str, Any]) -> None:
        """Show what is new."""
        self.job = job
        answer = await self.api.get(self.wire("events") + "?limit=500", self.fresh_s)
        if answer is not self.seen:
            self.seen = answer
            self._events = answer["data"]
            self._show()

    def _show(self) -> None:
        self._table.rows = [
            {"id": event["id"], "at": when(event["created_at"]), "level": event["level"], "message": event["message"]}
            for event in self._events
            if self._steps.value or event["type"] != "metrics"
        ]


class Checkpoints(Panel):
    """The checkpoints, each a model that answers."""

    name = "Checkpoints"
    icon = "flag"

    def draw(self) -> None:
        """Draw the panel, empty."""
        self._none = ui.label("No checkpoint yet.").classes("text-sm opacity-70")
        self._list = ui.column().classes("w-full gap-2")

    async def look(self, job: dict[str, Any]) -> None:
        """Show what is new."""
        self.job = job
        answer = await self.api.get(self.wire("checkpoints") + "?limit=100", self.fresh_s)
        if answer is self.seen:
            return
        self.seen = answer
        self._none.visible = not answer["data"]
        self._list.clear()
        with self._list:
            for checkpoint in answer["data"]:
                model = checkpoint["fine_tuned_model_checkpoint"]
                with ui.card().classes("w-full"):
                    with ui.row().classes("w-full items-center gap-3"):
                        ui.label(f"Step {checkpoint['step_number']:,}").classes("font-semibold")
                        ui.label(model).classes("font-mono text-sm break-all")
                        ui.space()
                        if self.api.me.changes:
                            ui.link("Try it", "/playground?" + urlencode({"right": model}))
                            ui.link("Train on", "/new?" + urlencode({"model": model}))
                        if self.api.me.administers:
                            act("Share", "group", partial(share, self.api, model), about=model)
                    told = [
                        f"{key} {number(value)}"
                        for key, value in checkpoint["metrics"].items()
                        if value is not None and key not in ("step", "type")  # the page says both already
                    ]
                    ui.label(" · ".join(told)).classes("text-sm opacity-80")


class Rollouts(Panel):
    """What a reinforcement step sampled, with its grades."""

    name = "Rollouts"
    icon = "casino"

    def draw(self) -> None:
        """Draw the panel, empty."""
        self._step = ui.select([], label="Step", on_change=self._changed).props("dense outlined").classes("min-w-32")
        self._list = ui.column().classes("w-full gap-2")

    async def look(self, job: dict[str, Any]) -> None:
        """Show what is new."""
        self.job = job
        asked = {"limit": 50, **({} if self._step.value is None else {"step": self._step.value})}
        answer = await self.api.get(self.ours("rollouts") + "?" + urlencode(asked), self.fresh_s)
        if answer is self.seen:
            return
        self.seen = answer
        if self._step.options != answer["steps"]:
            self._step.set_options(answer["steps"])
        self._list.clear()
        with self._list:
            if not answer["data"]:
                ui.label("Nothing sampled yet.").classes("text-sm opacity-70")
            for rollout in answer["data"]:
                _rollout(rollout)

    async def _changed(self) -> None:
        try:
            await self.look(self.job)
        except Refused as error:
            tell(error)


def _rollout(rollout: dict[str, Any]) -> None:
    reward, split = rollout["reward"], "training" if rollout["split"] == "train" else "validation"
    with ui.card().classes("w-full gap-1"):
        with ui.row().classes("items-center gap-3"):
            ui.badge("not graded" if reward is None else f"reward {number(reward)}").props("color=teal-9")
            told = [f"{split} row {rollout['row']}, sample {rollout['sample'] + 1}"]
            told += [f"{name} {number(score)}" for name, score in rollout["scores"].items()]
            if rollout["advantage"] is not None:
                told.append(f"advantage {number(rollout['advantage'])}")
            ui.label(" · ".join(told)).classes("text-sm opacity-80")
        for message in rollout["messages"]:
            draw_message(str(message.get("role")), said(message))
        draw_message("assistant", rollout["output_text"] or json.dumps(rollout["output_tools"], ensure_ascii=False))
        if rollout["error"]:
            ui.label(rollout["error"]).classes("text-negative text-sm whitespace-pre-wrap")


_ANSWERS_TO_COME: Final = "When the run has ended, some rows are answered here by the base and by the tuned model."
_NO_ANSWERS: Final = {
    "succeeded": "No row was answered: a twentieth of the run's time was too short for it, or the events tell why.",
    "failed": "The run ended without a tuned model.",
    "cancelled": "The run ended without a tuned model.",
}


class Answers(Panel):
    """Held-out rows as base and tuned model answer them."""

    name = "Before and after"
    icon = "compare"

    def draw(self) -> None:
        """Draw the panel, empty."""
        self._complete = False
        self._list = ui.column().classes("w-full gap-3")

    async def look(self, job: dict[str, Any]) -> None:
        """Show what is new."""
        self.job = job
        answer = await self.api.get(self.ours("comparison"), self.fresh_s if self._complete else DRAW_S)
        if answer is self.seen:
            return
        self.seen = answer
        self._complete = bool(answer["rows"])
        self._list.clear()
        with self._list:
            if not answer["rows"]:
                ui.label(_NO_ANSWERS.get(job["status"], _ANSWERS_TO_COME)).classes("text-sm opacity-70")
            elif not any(row["held_out"] for row in answer["rows"]):
                ui.label("These rows are of the training file: the job has no validation file.").classes(
                    "text-sm opacity-70"
                )
            for row in answer["rows"]:
                _compared(row)


def _compared(row: dict[str, Any]) -> None:
    with ui.card().classes("w-full gap-2"):
        for message in row["messages"]:
            draw_message(str(message.get("role")), said(message))
        with ui.element("div").classes("grid grid-cols-1 md:grid-cols-2 gap-3 w-full"):
            for title in ("base", "tuned"):
                with ui.column().classes("gap-1"):
                    ui.label(title.capitalize()).classes("text-xs uppercase opacity-70")
                    ui.label(row[title]).classes("whitespace-pre-wrap")
        if row["reference"] is not None:
            ui.label(f"Reference: {said(row['reference'])}").classes("text-sm opacity-80 whitespace-pre-wrap")
