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
#: How many jobs a filter looks through, and how many it asks for at once; older ones are loaded by the button.
N_FILTERED: Final = 5000
N_SCANNED: Final = 1000
COLUMNS: Final = [
    {"name": "status", "label": "Status", "field": "status", "align": "left", "sortable": True},
    {"name": "name", "label": "Job", "field": "name", "align": "left", "sortable": True},
    {"name": "method", "label": "Method", "field": "method", "align": "left", "sortable": True},
    {"name": "model", "label": "Model", "field": "model", "align": "left", "sortable": True},
    {"name": "created", "label": "Created", "field": "created", "align": "left", "sortable": True},
    {"name": "took", "label": "Elapsed", "field": "took", "align": "right"},
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
        with house.frame("Jobs", api, here="/"):
            await _Jobs(api).draw()


class _Jobs:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._older: list[dict[str, Any]] = []
        self._newest: dict[str, Any] = {"data": [], "has_more": False}
        self._more = False
        self._shown: list[dict[str, Any]] = []
        self._loading = False

    async def draw(self) -> None:
        with ui.row().classes("w-full items-center justify-between"):
            heading("Jobs")
            if self._api.me.changes:
                ui.button("New job", icon="add", on_click=lambda: ui.navigate.to("/new"))
        with ui.row().classes("w-full items-start gap-3"):
            self._text = ui.input("Search", on_change=self._filter).props("dense outlined clearable debounce=200")
            self._states = ui.select(list(COLORS), label="Status", multiple=True, on_change=self._filter)
            self._methods = ui.select(
                ["supervised", "dpo", "reinforcement"], label="Method", multiple=True, on_change=self._filter
            )
            self._models = ui.select([], label="Model", multiple=True, on_change=self._filter)
            for select in (self._states, self._methods, self._models):
                select.props("dense outlined use-chips").classes("flex-1 min-w-36")
            self._metadata = ui.input("Metadata (key=value)", on_change=self._again).props(
                "dense outlined clearable debounce=400"
            )
            for field in (self._text, self._metadata):
                field.classes("flex-1 min-w-48")
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

    def _path(self, after: str | None = None, limit: int = N_PAGE) -> str:
        asked = {f"metadata[{key}]": value for key, value in pairs(self._metadata.value or "").items()}
        return "/v1/fine_tuning/jobs?" + urlencode({"limit": limit, **asked, **({"after": after} if after else {})})

    async def _look(self) -> None:
        try:
            path = self._path()
        except ValueError as error:
            self._metadata.props(f'error error-message="{str(error).replace(chr(34), chr(39))}"')
            return
        self._metadata.props(remove="error error-message")
        newest = await self._api.get(path)
        if self._older:  # what new jobs have pushed out of the newest stays
            ids = {job["id"] for job in newest["data"]}
            self._older = [job for job in self._all() if job["id"] not in ids]
        else:
            self._more = newest["has_more"]
        self._newest = newest
        known = {job["model"] for job in self._all()}
        if set(self._models.options) != known:
            self._models.set_options(sorted(known))
        self._show()

    async def _load(self, limit: int = N_PAGE) -> bool:
        asked = self._metadata.value
        try:
            answer = await self._api.call("GET", self._path(self._all()[-1]["id"], limit))
        except ValueError:  # told beside the field
            return False
        except Refused as error:
            tell(error)
            return False
        if asked != self._metadata.value:
            return False
        known = {job["id"] for job in self._all()}
        self._older += [job for job in answer["data"] if job["id"] not in known]
        self._more = answer["has_more"]
        self._show()
        return True

    async def _filter(self) -> None:
        """Show what the filters leave, of all jobs: the server's list has no filters but metadata."""
        self._show()
        if self._loading:
            return
        self._loading = True
        try:
            while self._more and self._filters() and len(self._all()) < N_FILTERED and await self._load(N_SCANNED):
                pass
        finally:
            self._loading = False

    def _filters(self) -> bool:
        return any(field.value for field in (self._text, self._states, self._methods, self._models))

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
