"""What pages are built of that list and change things: lines, tables, dialogs with fields, secrets that are shown once."""

from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

from nicegui import ui

from tunesmith.dashboard.api import Refused
from tunesmith.dashboard.house import answer, dialog_of_page, on_page, verbatim

Made = TypeVar("Made")

#: Of what is told of a line, how many characters are shown.
N_TOLD: Final = 160
#: Columns whose cells stay on one line.
SHORT: Final = frozenset({"n", "bytes", "memory", "at"})


class Form(Generic[Made]):
    """A dialog with fields: what the server refuses stands in it until it is right."""

    def __init__(self, title: str) -> None:
        self._dialog = dialog_of_page(title)
        with self._dialog, ui.card().classes("w-full max-w-lg gap-3"):
            ui.label(title).classes("text-lg font-semibold break-words").props("role=heading aria-level=2")
            self.body = ui.column().classes("w-full gap-3")
            self._problem = ui.label().classes("text-negative whitespace-pre-wrap break-words").props("role=alert")
            self._buttons = ui.row().classes("w-full justify-end")

    async def done(self, verb: str, send: Callable[[], Awaitable[Made]]) -> Made | None:
        """Show the dialog until `send` has succeeded, and return what it returned; None if it was left."""

        async def press() -> None:
            self._problem.text = ""
            button.disable()
            try:
                made = await send()
            except (Refused, ValueError) as error:
                self._problem.text = str(error)
            else:
                self._dialog.submit(made)
            finally:
                button.enable()

        with self._buttons:
            ui.button("Leave it", on_click=lambda: self._dialog.submit(None)).props("flat")
            button = ui.button(verb, on_click=press)
        return await answer(self._dialog)


async def show_once(title: str, secret: str, note: str) -> None:
    """Show a secret that is not shown again, with a button that copies it."""
    dialog = dialog_of_page(title).props("persistent")
    with dialog, ui.card().classes("w-full max-w-lg gap-3"):
        ui.label(title).classes("text-lg font-semibold break-words").props("role=heading aria-level=2")
        verbatim(secret)
        ui.label(note).classes("text-sm")
        with ui.row().classes("w-full justify-end"):
            ui.button("I have it", on_click=lambda: dialog.submit(None))
    await answer(dialog)


class Lines:
    """A list, drawn anew when what it shows has changed."""

    def __init__(self, none: str, draw: Callable[[Mapping[str, Any]], None]) -> None:
        self._none = none
        self._draw = draw
        self._column = ui.column().classes("w-full gap-0")
        self._shown: list[Mapping[str, Any]] | None = None

    def show(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Show rows."""
        wanted = list(rows)
        if wanted == self._shown:
            return
        self._shown = wanted
        self._column.clear()
        with self._column:
            if not wanted:
                ui.label(self._none).classes("opacity-70")
            for row in wanted:
                self._draw(row)


@contextmanager
def line(title: str, *told: str | None) -> Generator[None]:
    """Draw a line of a list: what it is, what is told of it, and at its end the buttons that are drawn inside."""
    with ui.row().classes("w-full items-center gap-x-3 gap-y-1 border-b border-gray-500/20 py-2"):
        with ui.column().classes("gap-0 min-w-48 flex-1"):
            ui.label(title).classes("font-medium wrap-anywhere")
            ui.label(" · ".join(map(_shortened, filter(None, told)))).classes("text-xs opacity-80 wrap-anywhere")
        with ui.row().classes("items-center gap-1"):
            yield


def act(text: str, icon: str, call: Callable[[], object], *, color: str = "", about: str = "") -> ui.button:
    """Draw a small button; `about` names what it is about to those who do not see where it stands."""
    button = ui.button(text, icon=icon, on_click=on_page(call)).props(
        "flat dense no-caps" + (f" color={color}" if color else "")
    )
    return button.props(f'aria-label="{text} {_attribute(about)}"') if about else button


def _shortened(text: str) -> str:
    return text if len(text) <= N_TOLD else f"{text[:N_TOLD]}…"


def _attribute(text: str) -> str:
    return text.replace("\\", " ").replace('"', "'")


def table(*columns: tuple[str, str], key: str, none: str = "None.") -> ui.table:
    """Draw an empty table."""
    told = [
        {
            "name": name,
            "label": label,
            "field": name,
            "align": "left",
            "classes": "whitespace-nowrap" if name in SHORT else "",
        }
        for name, label in columns
    ]
    made = ui.table(columns=told, rows=[], row_key=key).classes("w-full")
    return made.props(f'flat bordered dense wrap-cells hide-pagination no-data-label="{none}"')


def fill(shown: ui.table, rows: list[dict[str, Any]]) -> None:
    """Show rows, if they are others."""
    if shown.rows != rows:
        shown.rows = rows


def whole(field: ui.number) -> int | None:
    """Return a field's whole number, None where it is empty."""
    return None if field.value is None else int(field.value)
