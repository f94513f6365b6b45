"""The page of all jobs: live states, and filters."""

import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from nicegui import ui

from tunesmith.dashboard.api import Api, Refused
from tunesmith.dashboard.house import House, every, heading, tell
from tunesmith.dashboard.shapes import COLORS, filtered, lasting, left, pairs, took, when

N_PAGE: Final = 100
COLUMNS: Final = [
    {"name": "status", "label": "Status", "field": "status", "align": "left", "sortable": True},
    {"name": "name", "label": "Job", "field": "name", "align": "left", "sortable": True},
    {"name": "method", "label": "Method", "field": "method", "align": "left", "sortable": True},
    {"name": "model", "label": "Model", "field": "model", "align": "left", "sortable": True},
    {"name": "created", "label": "Created", "field": "created", "align": "left", "sortable": True},
    {"name": "took", "label": "Took", "field": "took", "align": "right"},
    {"name": "left", "label": "Remaining", "field": "left", "align": "right"},
]
STATUS: Final = """
<q-td :props="props"><q-badge :color="props.row.color" class="px-2 py-1">{{ props.row.status }}</q-badge></q-td>
"""
NAME: Final = """
<q-td :props="props">
  <a :href="props.row.link" class="text-inherit font-medium">{{ props.row.name }}</a>
  <div class="text-xs opacity-70" v-if="props.row.name != props.row.id">{{ props.row.id }}</div>
  <div class="text-xs opacity-70">{{ props.row.metadata }}</div>
</q-td>
"""


def add(house: House) -> None:
    """Give the page its path."""

    @ui.page("/")
    async def jobs() -> None:
        api = await house.enter()
        if api is None:
            return
        with house.frame("Jobs", here="/"):
            await _Jobs(api).draw()


class _Jobs:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._older: list[dict[str, Any]] = []
        self._newest: dict[str, Any] = {"data": [], "has_more": False}
        self._more = False
        self._shown: list[dict[str, Any]] = []

    async def draw(self) -> None:
        with ui.row().classes("w-full items-center justify-between"):
            heading("Jobs")
            ui.button("New job", icon="add", on_click=lambda: ui.navigate.to("/new"))
        with ui.row().classes("w-full items-center gap-3"):
            self._text = ui.input("Search", on_change=self._show).props("dense outlined clearable debounce=200")
            self._states = ui.select(list(COLORS), label="Status", multiple=True, on_change=self._show)
            self._methods = ui.select(
                ["supervised", "dpo", "reinforcement"], label="Method", multiple=True, on_change=self._show
            )
            self._models = ui.select([], label="Model", multiple=True, on_change=self._show)
            for select in (self._states, self._methods, self._models):
                select.props("dense outlined use-chips").classes("min-w-36")
            self._metadata = ui.input("Metadata (key=value)", on_change=self._again).props(
                "dense outlined clearable debounce=400"
            )
        self._table = (
            ui.table(columns=COLUMNS, rows=[], row_key="id", pagination=25)
            .classes("w-full")
            .props('flat bordered no-data-label="No job here."')
        )
        self._table.add_slot("body-cell-status", STATUS)
        self._table.add_slot("body-cell-name", NAME)
        self._button = ui.button("Load older jobs", on_click=self._load).props("flat")
        every(2.0, self._look)

    async def _again(self) -> None:
        self._older = []
        try:
            await self._look()
        except Refused as error:
            tell(error)

    def _path(self, after: str | None = None) -> str:
        asked = {f"metadata[{key}]": value for key, value in pairs(self._metadata.value or "").items()}
        return "/v1/fine_tuning/jobs?" + urlencode({"limit": N_PAGE, **asked, **({"after": after} if after else {})})

    async def _look(self) -> None:
        try:
            path = self._path()
        except ValueError as error:
            self._metadata.props(f'error error-message="{error}"')
            return
        self._metadata.props(remove="error error-message")
        newest = await self._api.get(path)
        if not self._older:
            self._more = newest["has_more"]
        self._newest = newest
        known = {job["model"] for job in self._all()}
        if set(self._models.options) != known:
            self._models.set_options(sorted(known))
        self._show()

    async def _load(self) -> None:
        jobs = self._all()
        try:
            answer = await self._api.call("GET", self._path(jobs[-1]["id"]))
        except Refused as error:
            tell(error)
            return
        self._older += answer["data"]
        self._more = answer["has_more"]
        self._show()

    def _all(self) -> list[dict[str, Any]]:
        newest = self._newest["data"]
        ids = {job["id"] for job in newest}
        return [*newest, *(job for job in self._older if job["id"] not in ids)]

    def _show(self) -> None:
        now = time.time()
        chosen = filtered(
            self._all(),
            text=self._text.value or "",
            states=self._states.value or (),
            methods=self._methods.value or (),
            models=self._models.value or (),
        )
        rows = [_row(job, now) for job in chosen]
        self._button.visible = self._more
        if rows != self._shown:
            self._shown = rows
            self._table.rows = rows


def _row(job: Mapping[str, Any], now: float) -> dict[str, Any]:
    return {
        "id": job["id"],
        "link": f"/dashboard/jobs/{job['id']}",
        "status": job["status"],
        "color": COLORS.get(job["status"], "grey-8"),
        "name": job["user_provided_suffix"] or job["id"],
        "metadata": ", ".join(f"{key}={value}" for key, value in (job["metadata"] or {}).items()),
        "method": job["method"]["type"],
        "model": job["model"],
        "created": when(job["created_at"]),
        "took": lasting(took(job, now)),
        "left": left(job, now),
    }
