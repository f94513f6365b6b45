"""The page of addresses that have none: the frame with its ways to all others, not an empty sheet."""

from collections.abc import Awaitable, Callable

from nicegui import ui

from tunesmith.dashboard.house import House, heading


def page(house: House) -> Callable[[], Awaitable[None]]:
    """Return what is drawn where nothing else is."""

    async def missing() -> None:
        ui.context.client.status_code = 404
        api = await house.enter()
        if api is None:
            return
        with house.frame("No such page", api):
            heading("No such page")
            ui.label("Nothing is at this address.")
            ui.link("Jobs", "/")

    return missing
