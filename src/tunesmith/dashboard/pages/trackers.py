"""The page of trackers of experiments, for admins: the key of Weights & Biases, never shown, and who else is told."""

from collections.abc import Mapping
from typing import Any, Final

from nicegui import ui

from tunesmith.dashboard.api import FRESH_S, Api, Refused
from tunesmith.dashboard.house import House, every, heading, only_admins, section, sure, tell
from tunesmith.dashboard.shapes import when
from tunesmith.dashboard.widgets import Form, Lines, act, fill, line, table

PATH: Final = "/tunesmith/v1/integrations"
WANDB: Final = "wandb"
#: Where keys of Weights & Biases are for, unless one says otherwise.
HOME: Final = "wandb.ai"
TELLS: Final = {"every_job": "every job", "jobs_that_ask": "jobs that ask for it", "no_job": "no job"}


def add(house: House) -> None:
    """Give the page its path."""

    @ui.page("/trackers")
    async def trackers() -> None:
        api = await house.enter()
        if api is None:
            return
        with house.frame("Trackers", api, here="/trackers"):
            if only_admins(api):
                _Trackers(api).draw()


class _Trackers:
    def __init__(self, api: Api) -> None:
        self._api = api

    def draw(self) -> None:
        heading("Trackers")
        ui.label("Trackers of experiments are told of jobs while they train. How that goes, the events of each job say.")
        section("The key of Weights & Biases")
        self._keys = Lines("", self._draw)
        section("Who is told")
        self._table = table(
            ("name", "Tracker"), ("tells", "Told of"), ("place", "Where"), ("package", "Package"), key="type"
        )  # fmt: skip
        every(5.0, self._look)

    async def _look(self, fresh_s: float = FRESH_S) -> None:
        found = await self._api.get(PATH, fresh_s)
        registered = next((each for each in found["data"] if each["id"] == WANDB), None)
        about = next(each for each in found["trackers"] if each["type"] == WANDB)
        self._keys.show([{"registered": registered, **about}])
        fill(self._table, [_row(each, registered) for each in found["trackers"]])

    def _draw(self, about: Mapping[str, Any]) -> None:
        registered = about["registered"]
        if registered is not None:
            title, told = f"A key for {registered['base_url'] or HOME}", f"registered {when(registered['updated_at'])}"
        elif about["place"] is not None:
            title, told = "No key is registered, and none is needed", "runs are kept here, and sent by nobody"
        else:
            title, told = "No key is registered", "a job that asks for Weights & Biases is refused"
        with line(title, told, f"not installed: {about['install']}" if about["install"] else None):
            if not about["install"]:
                act("Replace" if registered else "Register", "key", self._register)
            if registered:
                act("Remove", "delete", self._remove, color="negative")

    async def _register(self) -> None:
        form = Form[dict[str, Any]]("The key of Weights & Biases")
        with form.body:
            key = ui.input("Key", password=True).props("outlined dense autofocus autocomplete=off").classes("w-full")
            server = ui.input("Server of your own", placeholder=f"https://{HOME}").props("outlined dense stack-label")
            server.classes("w-full")
            ui.label("It is stored encrypted and shown nowhere again, here neither.").classes("text-sm")

        async def send() -> dict[str, Any]:
            if not (api_key := (key.value or "").strip()):
                raise ValueError("Write the key.")
            url = (server.value or "").strip()
            body = {"api_key": api_key, **({"base_url": url} if url else {})}
            return await self._api.call("PUT", f"{PATH}/{WANDB}", body)

        if await form.done("Register", send) is not None:
            await self._look(0)

    async def _remove(self) -> None:
        question = (
            "Remove the key? Jobs that ask for Weights & Biases from now on are refused. Runs that are open go on; one that "
            "has to be begun anew waits for another key."
        )
        if not await sure(question, "Remove"):
            return
        try:
            await self._api.call("DELETE", f"{PATH}/{WANDB}")
            await self._look(0)
        except Refused as error:
            tell(error)


def _row(tracker: Mapping[str, Any], registered: Mapping[str, Any] | None) -> dict[str, str]:
    place = tracker["place"]
    if place is None and tracker["type"] == WANDB:
        place = (registered["base_url"] or HOME) if registered else "nowhere without a key"
    return {
        "type": tracker["type"],
        "name": tracker["name"],
        "tells": TELLS[tracker["tells"]],
        "place": place or f"nowhere: {tracker['setting']} is not set",
        "package": tracker["install"] or "installed",
    }
