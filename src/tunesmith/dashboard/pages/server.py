"""The server's page: its queue, the models in memory, the processes that wait, the sandbox."""

from typing import Any, Final

from nicegui import ui

from tunesmith.dashboard.api import Api
from tunesmith.dashboard.house import House, every, heading, section
from tunesmith.dashboard.shapes import size
from tunesmith.dashboard.widgets import fill, table

#: What a level of the sandbox means for `python` graders.
LEVELS: Final = {
    "full": "graders in Python run, shut off from all of this host",
    "reduced": "graders in Python run without namespaces of their own, and cannot use /tmp",
    "none": "graders in Python are refused: this host has nothing to shut them in",
    "probing": "being found out",
}


def add(house: House) -> None:
    """Give the page its path."""

    @ui.page("/server")
    async def server() -> None:
        api = await house.enter()
        if api is None:
            return
        with house.frame("Server", api, here="/server"):
            _Server(api).draw()


class _Server:
    def __init__(self, api: Api) -> None:
        self._api = api

    def draw(self) -> None:
        heading("Server")
        section("Queue")
        self._slots = ui.label()
        self._queue = table(("position", "#"), ("job_id", "Job"), ("message", "Waits because"), key="job_id")
        section("Models in memory")
        self._samplers = table(
            ("base", "Base"), ("status", "Status"), ("rows", "Answering"), ("waiting", "Waiting"),
            ("adapters", "Tuned models"), ("memory", "Memory"), key="base",
        )  # fmt: skip
        if self._api.me.administers:
            section("Processes that wait for the next job")
            self._spares = table(("kind", "For"), ("status", "Status"), ("memory", "Memory"), ("pid", "Process"), key="pid")
        section("Sandbox of Python graders")
        self._sandbox = ui.label()
        every(2.0, self._look)

    async def _look(self) -> None:
        level = (await self._api.get("/readyz", 5.0))["sandbox"]
        self._sandbox.text = f"{level}: {LEVELS.get(level, '')}"
        queue = await self._api.get("/tunesmith/v1/queue")
        self._slots.text = f"training {_slots(queue['training'])} · validation {_slots(queue['validation'])}"
        fill(self._queue, queue["data"])
        found = (await self._api.get("/tunesmith/v1/samplers"))["data"]
        told = [{**each, "memory": size(each["memory_bytes"]), "adapters": ", ".join(each["adapters"])} for each in found]
        fill(self._samplers, told)
        if self._api.me.administers:
            spares = (await self._api.get("/tunesmith/v1/spares"))["data"]
            fill(self._spares, [{**each, "memory": size(each["memory_bytes"])} for each in spares])


def _slots(slots: dict[str, Any]) -> str:
    own = slots["limit_per_project"]
    return f"{slots['running']} of {slots['limit']} slots taken" + (f" (this project may have {own})" if own else "")
