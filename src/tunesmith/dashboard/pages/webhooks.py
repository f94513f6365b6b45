"""The page of webhooks: who is told of jobs' ends, trying it out, new secrets, and the log of what was sent."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from nicegui import ui

from tunesmith.dashboard.api import FRESH_S, Api, Refused, path_of
from tunesmith.dashboard.house import House, answer, dialog_of_page, every, heading, sure, tell
from tunesmith.dashboard.shapes import when
from tunesmith.dashboard.widgets import Form, Lines, act, line, show_once

PATH: Final = "/v1/webhook_endpoints"
ONCE: Final = "Receivers verify with it that what comes is from this server. This is the only time that it is shown."
COLORS: Final = {"delivered": "green-9", "pending": "blue-8", "failed": "red-9"}


def add(house: House) -> None:
    """Give the page its path."""

    @ui.page("/webhooks")
    async def webhooks() -> None:
        api = await house.enter()
        if api is None:
            return
        with house.frame("Webhooks", api, here="/webhooks"):
            _Webhooks(api).draw()


class _Webhooks:
    def __init__(self, api: Api) -> None:
        self._api = api

    def draw(self) -> None:
        with ui.row().classes("w-full items-center justify-between"):
            heading("Webhooks")
            if self._api.me.changes:
                ui.button("New webhook", icon="add", on_click=self._create)
        ui.label("Servers that are told when a job of this project ends.")
        self._lines = Lines("No webhook yet.", self._draw)
        every(3.0, self._look)

    async def _look(self, fresh_s: float = FRESH_S) -> None:
        self._lines.show((await self._api.get(f"{PATH}?limit=1000", fresh_s))["data"])

    def _draw(self, endpoint: Mapping[str, Any]) -> None:
        name, endpoint_id = endpoint["name"], endpoint["id"]
        events = ", ".join(_short(each) for each in endpoint["event_types"])
        disabled = f"disabled: {endpoint['status_details']}" if endpoint["status"] == "disabled" else None
        with line(name, endpoint["url"], events, f"secret {endpoint['signing_secret_hint']}", disabled):
            act("Log", "receipt_long", partial(self._log, endpoint_id, name), about=name)
            if not self._api.me.changes:
                return
            act("Test", "send", partial(self._test, endpoint), about=name)
            act("Change", "edit", partial(self._change, endpoint), about=name)
            act("New secret", "autorenew", partial(self._rotate, endpoint_id, name), about=name)
            act("Delete", "delete", partial(self._delete, endpoint_id, name), color="negative", about=name)

    async def _create(self) -> None:
        endpoint = await self._asked("New webhook", "Create", PATH, {"name": "", "url": "https://", "event_types": None})
        if endpoint is not None:
            await self._look(0)
            await show_once(f"The secret of {endpoint['name']}", endpoint["signing_secret"], ONCE)

    async def _change(self, endpoint: Mapping[str, Any]) -> None:
        path = path_of("v1", "webhook_endpoints", endpoint["id"])
        if await self._asked(f"Change {endpoint['name']}", "Save", path, endpoint):
            await self._look(0)

    async def _asked(self, title: str, verb: str, path: str, known: Mapping[str, Any]) -> dict[str, Any] | None:
        try:
            events = (await self._api.get("/v1/webhook_event_types", 60.0))["data"]
        except Refused as error:
            tell(error)
            return None
        form = Form[dict[str, Any]](title)
        with form.body:
            name = ui.input("Name", value=known["name"]).props("outlined dense autofocus").classes("w-full")
            url = ui.input("URL", value=known["url"]).props("outlined dense").classes("w-full")
            ui.label("It is told of").classes("text-sm")
            boxes = {
                each: ui.checkbox(_short(each), value=known["event_types"] is None or each in known["event_types"])
                for each in events
            }

        async def send() -> dict[str, Any]:
            chosen = [each for each, box in boxes.items() if box.value]
            if not chosen:
                raise ValueError("Choose at least one event.")
            body = {"name": name.value or "", "url": (url.value or "").strip(), "event_types": chosen}
            return await self._api.call("POST", path, body)

        return await form.done(verb, send)

    async def _test(self, endpoint: Mapping[str, Any]) -> None:
        name, path = endpoint["name"], path_of("v1", "webhook_endpoints", endpoint["id"], "test")
        form = Form[dict[str, Any]](f"Send {name} a sample")
        with form.body:
            events = {each: _short(each) for each in endpoint["event_types"]}
            event = ui.select(events, label="Event", value=endpoint["event_types"][0])
            event.props("outlined dense").classes("w-full")
        found = await form.done("Send", lambda: self._api.call("POST", path, {"event_type": event.value}))
        if found is not None:
            ui.notify(f"{name} answered {found['status_code']}.", type="positive")

    async def _rotate(self, endpoint_id: str, name: str) -> None:
        form = Form[dict[str, Any]](f"A new secret for {name}")
        with form.body:
            keep = ui.checkbox("The old secret signs too for 24 hours", value=True)
        path = path_of("v1", "webhook_endpoints", endpoint_id, "rotate_secret")
        endpoint = await form.done(
            "Make it", lambda: self._api.call("POST", path, {"keep_old_secret_active_for_24_hours": bool(keep.value)})
        )
        if endpoint is not None:
            await self._look(0)
            await show_once(f"The new secret of {name}", endpoint["signing_secret"], ONCE)

    async def _delete(self, endpoint_id: str, name: str) -> None:
        if not await sure(f"Delete {name}? It is told of nothing any more, and its log is gone.", "Delete"):
            return
        try:
            await self._api.call("DELETE", path_of("v1", "webhook_endpoints", endpoint_id))
            await self._look(0)
        except Refused as error:
            tell(error)

    async def _log(self, endpoint_id: str, name: str) -> None:
        dialog = dialog_of_page(f"Sent to {name}")
        with dialog, ui.card().classes("w-full max-w-3xl gap-2"):
            with ui.row().classes("w-full items-center no-wrap"):
                ui.label(f"Sent to {name}").classes("text-lg font-semibold break-all").props("role=heading aria-level=2")
                ui.space()
                ui.button(icon="close", on_click=dialog.close).props('flat dense aria-label="Close"')
            lines = Lines("Nothing was to be sent yet.", lambda delivery: _draw_delivery(self._api, delivery))
            path = path_of("tunesmith", "v1", "webhook_endpoints", endpoint_id, "deliveries")

            async def look() -> None:
                lines.show((await self._api.get(f"{path}?limit=100"))["data"])

            every(2.0, look)
        await answer(dialog)


def _draw_delivery(api: Api, delivery: Mapping[str, Any]) -> None:
    event, code = delivery["event"], delivery["status_code"]
    told = [
        when(event["created_at"]),
        f"{delivery['tries']} tries" if delivery["tries"] != 1 else "1 try",
        f"answered {code}" if code else None,
        delivery["reason"],
        f"next try {when(delivery['next_try_at'])}" if delivery["next_try_at"] else None,
    ]

    async def again() -> None:
        try:
            await api.call("POST", path_of("tunesmith", "v1", "webhook_deliveries", delivery["id"], "redeliver"))
        except Refused as error:
            tell(error)

    with line(f"{_short(event['type'])} · {event['data'].get('id', '')}", *told):
        ui.badge(delivery["status"]).props(f"color={COLORS.get(delivery['status'], 'grey-8')}")
        if api.me.changes and delivery["status"] != "pending":
            act("Send again", "replay", again, about=delivery["id"])


def _short(event_type: str) -> str:
    return event_type.removeprefix("fine_tuning.")
