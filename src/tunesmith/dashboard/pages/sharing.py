"""The dialog of sharing, for admins: which other projects may use a tuned model or a checkpoint; one more, one less."""

from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from tunesmith.dashboard.api import FRESH_S, Api, Refused, path_of
from tunesmith.dashboard.house import answer, dialog_of_page, every, on_page, sure, tell
from tunesmith.dashboard.shapes import when
from tunesmith.dashboard.widgets import Lines, act, line

PROJECTS = "/v1/organization/projects?" + urlencode({"limit": 100, "include_archived": "true"})


async def share(api: Api, model: str) -> None:
    """Show who may use a model, until it is closed."""
    await _Sharing(api, model).shown()


class _Sharing:
    def __init__(self, api: Api, model: str) -> None:
        self._api = api
        self._model = model
        self._path = path_of("v1", "fine_tuning", "checkpoints", model, "permissions")
        self._names: dict[str, str] = {}

    async def shown(self) -> None:
        title = f"Who may use {self._model}"
        dialog = dialog_of_page(title)
        with dialog, ui.card().classes("w-full max-w-lg gap-3"):
            with ui.row().classes("w-full items-start no-wrap"):
                heading = ui.label(title).classes("text-lg font-semibold break-words min-w-0 flex-1")
                heading.props("role=heading aria-level=2")
                ui.button(icon="close", on_click=dialog.close).props('flat dense aria-label="Close"')
            ui.label(
                "A project that may use it asks it, judges with it and trains on from it. It sees nothing of the job that "
                "made it, and cannot delete, export or share it."
            ).classes("text-sm")
            self._lines = Lines("No other project.", self._draw)
            with ui.row().classes("w-full items-center no-wrap"):
                self._chosen = ui.select({}, label="Project").props("outlined dense").classes("min-w-0 flex-1")
                ui.button("Let it use it", on_click=on_page(self._grant)).props("outline no-caps")
            every(5.0, self._look)
        await answer(dialog)

    async def _look(self, fresh_s: float = FRESH_S) -> None:
        projects = (await self._api.get(PROJECTS, 10.0))["data"]
        self._names = {each["id"]: each["name"] for each in projects}
        found = (await self._api.get(f"{self._path}?limit=1000", fresh_s))["data"]
        self._lines.show([{**each, "name": self._names.get(each["project_id"], each["project_id"])} for each in found])
        known = {self._api.me.project_id, *(each["project_id"] for each in found)}
        others = {each["id"]: each["name"] for each in projects if each["status"] == "active" and each["id"] not in known}
        if others != self._chosen.options:
            self._chosen.set_options(others, value=self._chosen.value if self._chosen.value in others else None)

    def _draw(self, permission: Mapping[str, Any]) -> None:
        name = permission["name"]
        with line(name, f"since {when(permission['created_at'])}"):
            act("Withdraw", "block", partial(self._withdraw, permission["id"], name), color="negative", about=name)

    async def _grant(self) -> None:
        if self._chosen.value is None:
            ui.notify("Choose a project that may use it.", type="warning")
            return
        try:
            await self._api.call("POST", self._path, {"project_ids": [self._chosen.value]})
            await self._look(0)
        except Refused as error:
            tell(error)

    async def _withdraw(self, permission_id: str, name: str) -> None:
        question = f"Withdraw it from {name}? Its next request is refused; jobs that it began from the model go on."
        if not await sure(question, "Withdraw"):
            return
        try:
            await self._api.call("DELETE", f"{self._path}/{permission_id}")
            await self._look(0)
        except Refused as error:
            tell(error)
