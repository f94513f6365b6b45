"""The server's page: its queue, samplers, sandbox and webhooks."""

from typing import Any

from nicegui import ui

from tunesmith.dashboard.api import Api, Refused
from tunesmith.dashboard.house import House, every, heading, section
from tunesmith.dashboard.shapes import size, when


def add(house: House) -> None:
    """Give the page its path."""

    @ui.page("/admin")
    async def admin() -> None:
        api = await house.enter()
        if api is None:
            return
        with house.frame("Server", here="/admin"):
            _Admin(api).draw()


class _Admin:
    def __init__(self, api: Api) -> None:
        self._api = api

    def draw(self) -> None:
        heading("Server")
        self._state = ui.label()
        section("Queue")
        self._slots = ui.label()
        self._queue = _table(("position", "#"), ("job_id", "Job"), ("message", "Waits because"))
        section("Models in memory")
        self._samplers = _table(
            ("base", "Base"), ("status", "Status"), ("rows", "Answering"), ("waiting", "Waiting"), ("memory", "Memory")
        )
        section("Webhooks")
        self._webhooks = _table(("name", "Name"), ("url", "URL"), ("events", "Events"), ("created", "Created"))
        every(2.0, self._look)

    async def _look(self) -> None:
        state = await self._api.get("/readyz", 5.0)
        self._state.text = f"{state['status']} · sandbox of python graders: {state['sandbox']}"
        queue = await self._api.get("/tunesmith/v1/queue")
        self._slots.text = f"training {_slots(queue['training'])} · validation {_slots(queue['validation'])}"
        _fill(self._queue, queue["data"])
        found = (await self._api.get("/tunesmith/v1/samplers"))["data"]
        _fill(self._samplers, [{**each, "memory": size(each["memory_bytes"])} for each in found])
        try:
            endpoints = (await self._api.get("/v1/webhook_endpoints?limit=100", 5.0))["data"]
        except Refused:  # the key's role may not see them
            endpoints = []
        rows = [
            {**each, "events": ", ".join(each["event_types"]), "created": when(each["created_at"])} for each in endpoints
        ]
        _fill(self._webhooks, rows)


def _slots(slots: dict[str, Any]) -> str:
    return f"{slots['running']} of {slots['limit']} slots taken"


def _table(*columns: tuple[str, str]) -> ui.table:
    told = [{"name": name, "label": label, "field": name, "align": "left"} for name, label in columns]
    table = ui.table(columns=told, rows=[], row_key=columns[1][0]).classes("w-full")
    table.props('flat bordered dense wrap-cells hide-pagination no-data-label="None."')
    return table


def _fill(table: ui.table, rows: list[dict[str, Any]]) -> None:
    if table.rows != rows:
        table.rows = rows
