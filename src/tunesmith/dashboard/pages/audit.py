"""The page of the audit log, for admins: who changed what, the newest first."""

import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from nicegui import ui

from tunesmith.dashboard.api import Api, Refused
from tunesmith.dashboard.house import House, every, heading, only_admins, tell
from tunesmith.dashboard.shapes import when
from tunesmith.dashboard.widgets import Lines, line

PATH: Final = "/tunesmith/v1/audit"
N_PAGE: Final = 100
SPANS: Final = {0: "for ever", 3600: "the last hour", 86_400: "the last day", 7 * 86_400: "the last week"}


def add(house: House) -> None:
    """Give the page its path."""

    @ui.page("/audit")
    async def audit() -> None:
        api = await house.enter()
        if api is None:
            return
        with house.frame("Audit log", api, here="/audit"):
            if only_admins(api):
                await _Audit(api).draw()


class _Audit:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._older: list[dict[str, Any]] = []
        self._newest: list[dict[str, Any]] = []

    async def draw(self) -> None:
        heading("Audit log")
        ui.label("Every change: who made it, from where, and which call it was. Never what was said in it.")
        try:
            projects = (await self._api.get("/v1/organization/projects?limit=100&include_archived=true"))["data"]
            keys = (await self._api.get("/tunesmith/v1/keys"))["data"]
        except Refused as error:
            tell(error)
            return
        self._names = {each["id"]: each["name"] for each in (*projects, *keys)}
        with ui.row().classes("w-full items-center gap-3"):
            self._project = ui.select({each["id"]: each["name"] for each in projects}, label="Project", clearable=True)
            self._key = ui.select({each["id"]: each["name"] for each in keys}, label="Key", clearable=True)
            self._span = ui.select(SPANS, label="Since", value=0)
            for field in (self._project, self._key, self._span):
                field.props("outlined dense").classes("w-full sm:w-56").on_value_change(self._again)
        self._lines = Lines("No change.", self._draw)
        self._more = ui.button("Load older ones", on_click=self._load).props("flat")
        self._more.visible = False
        every(5.0, self._look)

    def _path(self, after: str | None = None) -> str:
        # By the minute: pages that ask for the same share the answer.
        since = int(time.time()) // 60 * 60 - self._span.value if self._span.value else None
        asked = {
            "limit": N_PAGE,
            "project_id": self._project.value,
            "key_id": self._key.value,
            "since": since,
            "after": after,
        }
        return f"{PATH}?" + urlencode({name: value for name, value in asked.items() if value is not None})

    async def _again(self) -> None:
        self._older = []
        try:
            await self._look()
        except Refused as error:
            tell(error)

    async def _look(self) -> None:
        answer = await self._api.get(self._path())
        gone = {each["id"] for each in answer["data"]}
        if self._older:  # what new entries have pushed out of the first page stays
            self._older = [each for each in (*self._newest, *self._older) if each["id"] not in gone]
        else:
            self._more.visible = answer["has_more"]
        self._newest = answer["data"]
        self._show()

    async def _load(self) -> None:
        known = [*self._newest, *self._older]
        try:
            answer = await self._api.call("GET", self._path(known[-1]["id"]))
        except Refused as error:
            tell(error)
            return
        self._older += answer["data"]
        self._more.visible = answer["has_more"]
        self._show()

    def _show(self) -> None:
        self._lines.show([*self._newest, *self._older])

    def _draw(self, entry: Mapping[str, Any]) -> None:
        key, status = entry["key_id"], entry["status"]
        told = [
            when(entry["created_at"]),
            entry["actor"] if key is None else f"{self._names.get(key, key)} ({entry['actor']})",
            self._names.get(entry["project_id"], entry["project_id"]),
            ", ".join(entry["objects"]),
            entry["address"],
        ]
        with line(entry["action"], *told):
            if status:
                ui.label(str(status)).classes("text-sm")
