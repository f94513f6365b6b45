"""The page of projects, for admins: create, rename, archive, work in one, and what each may have."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from nicegui import ui

from tunesmith.dashboard.api import FRESH_S, Api, Refused, path_of
from tunesmith.dashboard.house import House, every, heading, only_admins, section, sure, tell
from tunesmith.dashboard.shapes import number, size, when
from tunesmith.dashboard.widgets import Form, Lines, act, line, whole

PATH: Final = "/v1/organization/projects"
#: What a project may have, as the API and as people call it.
QUOTAS: Final = {
    "training_slots": "Trainings at the same time",
    "queued_jobs": "Jobs that wait",
    "files": "Files",
    "file_bytes": "Bytes of all files",
}
RATES: Final = {"max_requests_per_1_minute": "Requests a minute", "max_tokens_per_1_minute": "Tokens a minute"}
NO_LIMIT: Final = "none"


def add(house: House) -> None:
    """Give the page its path."""

    @ui.page("/projects")
    async def projects() -> None:
        api = await house.enter()
        if api is None:
            return
        with house.frame("Projects", api, here="/projects"):
            if only_admins(api):
                _Projects(house, api).draw()


class _Projects:
    def __init__(self, house: House, api: Api) -> None:
        self._house = house
        self._api = api

    def draw(self) -> None:
        with ui.row().classes("w-full items-center justify-between"):
            heading("Projects")
            ui.button("New project", icon="add", on_click=self._create)
        self._archived = ui.switch("Show archived ones", on_change=lambda: self._look(0))
        self._lines = Lines("No project.", self._draw)
        every(5.0, self._look)

    async def _look(self, fresh_s: float = FRESH_S) -> None:
        asked = f"{PATH}?limit=100" + ("&include_archived=true" if self._archived.value else "")
        found = list[Mapping[str, Any]]()
        more: str | None = ""
        while more is not None:
            answer = await self._api.get(asked + more, fresh_s)
            found += answer["data"]
            more = f"&after={answer['last_id']}" if answer["has_more"] else None
        self._lines.show(found)

    def _draw(self, project: Mapping[str, Any]) -> None:
        name, project_id, archived = project["name"], project["id"], project["status"] == "archived"
        told = f"archived {when(project['archived_at'])}" if archived else f"created {when(project['created_at'])}"
        here = project_id == self._api.me.project_id
        with line(name, project_id, told, "you work in it" if here else None):
            if self._api.me.key_id is not None and not here:
                act("Work in it", "login", partial(self._work_in, project_id), about=name)
            act("Limits", "speed", partial(self._limit, project_id, name), about=name)
            if not archived:
                act("Rename", "edit", partial(self._rename, project_id, name), about=name)
            if not archived and project_id != "proj_default":
                act("Archive", "archive", partial(self._archive, project_id, name), color="negative", about=name)

    def _work_in(self, project_id: str) -> None:
        self._house.work_in(project_id)
        ui.navigate.to("/")

    async def _create(self) -> None:
        form = Form[dict[str, Any]]("New project")
        with form.body:
            name = ui.input("Name").classes("w-full").props("outlined dense autofocus")
        if await form.done("Create", lambda: self._api.call("POST", PATH, {"name": name.value or ""})):
            await self._look(0)

    async def _rename(self, project_id: str, known: str) -> None:
        form = Form[dict[str, Any]](f"Rename {known}")
        with form.body:
            name = ui.input("Name", value=known).classes("w-full").props("outlined dense autofocus")
        path = path_of("v1", "organization", "projects", project_id)
        if await form.done("Rename", lambda: self._api.call("POST", path, {"name": name.value or ""})):
            await self._look(0)

    async def _archive(self, project_id: str, name: str) -> None:
        question = f"Archive {name}? Its keys are refused from the next request on, for good. What belongs to it stays."
        if not await sure(question, "Archive"):
            return
        try:
            await self._api.call("POST", path_of("v1", "organization", "projects", project_id, "archive"))
        except Refused as error:
            tell(error)
            return
        await self._look(0)

    async def _limit(self, project_id: str, name: str) -> None:
        quotas = path_of("tunesmith", "v1", "projects", project_id, "limits")
        rates = path_of("v1", "organization", "projects", project_id, "rate_limits")
        try:
            found = await self._api.get(quotas, 0)
            bases = (await self._api.get(f"{rates}?limit=1000", 0))["data"]
        except Refused as error:
            tell(error)
            return
        form = Form[bool](f"Limits of {name}")
        with form.body:
            fields = _draw_quotas(found)
            section("Of each base model")
            asked = {base["model"]: (base, _draw_rate(base)) for base in bases}

        async def save() -> bool:
            await self._api.call("PUT", quotas, _quotas(fields))
            for base, numbers in asked.values():
                changes = {key: whole(field) for key, field in numbers.items() if whole(field) != base[key]}
                if changes:
                    await self._api.call("POST", f"{rates}/{base['id']}", changes)
            return True

        if await form.done("Save", save):
            ui.notify("The limits hold from the next request on.", type="positive")


def _draw_quotas(found: Mapping[str, Any]) -> dict[str, ui.input]:
    usage, fields = found["usage"], dict[str, ui.input]()
    ui.label(f'A number, or "{NO_LIMIT}" for no limit. Empty: as for every project.').classes("text-sm opacity-80")
    for key, label in QUOTAS.items():
        limit, own = found["limits"][key], key in found["own"]
        shown = NO_LIMIT if limit is None else str(limit)
        others = "as for every project" if own else f"as for every project: {shown}"
        field = ui.input(label, value=shown if own else "", placeholder=others)
        has = usage.get(key)
        told = "" if has is None else f"now {size(has) if key.endswith('bytes') else number(has)}"
        fields[key] = field.classes("w-full").props(f'outlined dense stack-label hint="{told}"')
    return fields


def _quotas(fields: Mapping[str, ui.input]) -> dict[str, int | None]:
    """Return the body that sets quotas.

    Raises:
        ValueError: a field holds no number; the text names it.
    """
    said: dict[str, int | None] = {}
    for key, field in fields.items():
        text = (field.value or "").strip().replace(",", "").replace("_", "")
        if text and text != NO_LIMIT and not text.isdecimal():
            raise ValueError(f'{QUOTAS[key]}: "{text}" is no number; write one, "{NO_LIMIT}", or nothing.')
        if text:
            said[key] = None if text == NO_LIMIT else int(text)
    return said


def _draw_rate(base: Mapping[str, Any]) -> dict[str, ui.number]:
    ui.label(base["model"]).classes("font-mono text-sm break-all")
    with ui.element("div").classes("grid grid-cols-2 gap-3 w-full"):
        return {
            key: ui.number(label, value=base[key], min=0, precision=0, placeholder="no limit")
            .props("outlined dense stack-label")
            .classes("w-full")
            for key, label in RATES.items()
        }
