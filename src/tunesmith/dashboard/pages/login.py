"""The page that asks for a key, where the server wants one."""

from nicegui import ui

from tunesmith.dashboard.api import Refused
from tunesmith.dashboard.house import House, heading


def add(house: House) -> None:
    """Give the page its path."""

    @ui.page("/login")
    def login(back: str = "/", refused: bool = False) -> None:
        with house.frame("Log in"), ui.card().classes("max-w-md w-full mx-auto"):
            heading("Log in")
            ui.label("This server wants an API key. It is kept in the server's memory for this browser until you log out.")
            if refused:
                ui.label("The key that this browser had is not accepted any more.").classes("text-negative")
            key = ui.input("API key", password=True, password_toggle_button=True).classes("w-full").props("autofocus")
            problem = ui.label().classes("text-negative").props("role=alert")

            async def enter() -> None:
                given = (key.value or "").strip()
                try:
                    await house.api(given).call("GET", "/tunesmith/v1/me")
                except Refused as error:
                    problem.text = str(error)
                    return
                house.log_in(given)
                ui.navigate.to(back if back.startswith("/") else "/")  # a path is one of the dashboard's, whoever wrote it

            key.on("keydown.enter", enter)
            ui.button("Log in", on_click=enter)
