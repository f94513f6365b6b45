"""The page of keys, for admins: those of projects and of admins; a key's text is shown when it is made and never again."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from nicegui import ui

from tunesmith.dashboard.api import FRESH_S, Api, Refused, path_of
from tunesmith.dashboard.house import House, every, heading, only_admins, section, sure, tell
from tunesmith.dashboard.shapes import when
from tunesmith.dashboard.widgets import Form, Lines, act, line, show_once, whole

PATH: Final = "/tunesmith/v1/keys"
ADMINS: Final = "/v1/organization/admin_api_keys"
DAY_S: Final = 86_400
ROLES: Final = {"member": "member: everything in its project", "reader": "reader: sees its project, changes nothing"}


def add(house: House) -> None:
    """Give the page its path."""

    @ui.page("/keys")
    async def keys() -> None:
        api = await house.enter()
        if api is None:
            return
        with house.frame("Keys", api, here="/keys"):
            if only_admins(api):
                _Keys(api).draw()


class _Keys:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._projects: dict[str, str] = {}

    def draw(self) -> None:
        heading("Keys")
        if self._api.me.key_id is None:
            ui.label("On this address nobody needs a key: everybody is an admin. Keys count where the server asks for them.")
        with ui.row().classes("w-full items-center justify-between"):
            section("Of projects")
            ui.button("New key", icon="add", on_click=self._create)
        self._chosen = ui.select({}, label="Project", clearable=True, on_change=lambda: self._look(0))
        self._chosen.props("outlined dense").classes("w-full sm:w-80")
        self._members = Lines("No key of a project.", self._draw)
        with ui.row().classes("w-full items-center justify-between"):
            section("Of admins")
            ui.button("New admin key", icon="add", on_click=self._create_admin).props("outline")
        self._admins = Lines("No admin key.", self._draw)
        every(10.0, self._look)

    async def _look(self, fresh_s: float = FRESH_S) -> None:
        projects = (await self._api.get("/v1/organization/projects?limit=100&include_archived=true", fresh_s))["data"]
        self._projects = {each["id"]: each["name"] for each in projects}
        if self._chosen.options != self._projects:
            self._chosen.set_options(self._projects)
        found = (await self._api.get(PATH, fresh_s))["data"]
        # Drawn anew when what is seen has changed: a key that is in use is used every moment.
        told = [{**key, "last_used_at": (key["last_used_at"] or 0) // 60 * 60} for key in found]
        self._admins.show(key for key in told if key["role"] == "admin")
        self._members.show(key for key in told if key["role"] != "admin" and self._chosen.value in (None, key["project_id"]))

    def _draw(self, key: Mapping[str, Any]) -> None:
        expires, used, own = key["expires_at"], key["last_used_at"], key["id"] == self._api.me.key_id
        expired = expires is not None and expires <= time.time()
        told = [
            key["redacted_value"],
            self._projects.get(key["project_id"], key["project_id"]),
            key["role"],
            f"made {when(key['created_at'])}",
            "the one you use" if own else f"last used {when(used)[:-3]}" if used else "never used",
            None if expires is None else f"expire{'d' if expired else 's'} {when(expires)}",
        ]
        with line(key["name"], *told):
            if expired:
                ui.badge("expired").props("color=grey-8")
            call = partial(self._revoke, key["id"], key["name"], own)
            act("Revoke", "block", call, color="negative", about=key["name"])

    async def _create(self) -> None:
        form = Form[dict[str, Any]]("New key")
        with form.body:
            name = ui.input("Name").props("outlined dense autofocus").classes("w-full")
            project = ui.select(self._projects, label="Of project", value=self._chosen.value or self._api.me.project_id)
            role = ui.select(ROLES, label="Role", value="member")
            for field in (project, role):
                field.props("outlined dense").classes("w-full")
            days = _draw_days()

        async def send() -> dict[str, Any]:
            body: dict[str, Any] = {"name": name.value or "", "project_id": project.value, "role": role.value}
            if whole(days) is not None:
                body["expires_at"] = int(time.time()) + DAY_S * int(whole(days) or 0)
            return await self._api.call("POST", PATH, body)

        await self._made(await form.done("Create", send))

    async def _create_admin(self) -> None:
        form = Form[dict[str, Any]]("New admin key")
        with form.body:
            name = ui.input("Name").props("outlined dense autofocus").classes("w-full")
            days = _draw_days()

        async def send() -> dict[str, Any]:
            body: dict[str, Any] = {"name": name.value or ""}
            if whole(days) is not None:
                body["expires_in_seconds"] = DAY_S * int(whole(days) or 0)
            return await self._api.call("POST", ADMINS, body)

        await self._made(await form.done("Create", send))

    async def _made(self, key: Mapping[str, Any] | None) -> None:
        if key is None:
            return
        await self._look(0)
        note = "This is the only time that it is shown: the server keeps no more of it than it needs to know it again."
        await show_once(f"The key {key['name']}", key["value"], note)

    async def _revoke(self, key_id: str, name: str, own: bool) -> None:
        more = " It is the one that this page uses: you will be asked for another." if own else ""
        if not await sure(f"Revoke {name}? The next request with it is refused.{more}", "Revoke"):
            return
        try:
            await self._api.call("DELETE", path_of("tunesmith", "v1", "keys", key_id))
            await self._look(0)
        except Refused as error:
            tell(error)


def _draw_days() -> ui.number:
    days = ui.number("Days until it expires", min=1, precision=0, placeholder="never")
    return days.props("outlined dense stack-label").classes("w-full")
