"""The page of files: upload, look into, download, delete."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from nicegui import events, ui
from nicegui.elements.upload_files import FileUpload

from tunesmith.dashboard.api import FRESH_S, Api, Refused, path_of
from tunesmith.dashboard.house import House, dialog_of_page, every, heading, on_page, sure, tell, verbatim
from tunesmith.dashboard.rows import N_ROWS, Row, first_rows, said
from tunesmith.dashboard.shapes import size, when

#: A file over this is downloaded, not looked into.
LOOKED_BYTES: Final = 64 * 1024**2
#: Of a file that has no rows, how much is shown.
N_CHARACTERS: Final = 200_000
#: How many files are shown, and how many more are asked for.
N_PAGE: Final = 200
N_MOST: Final = 10_000


def add(house: House) -> None:
    """Give the page its path."""

    @ui.page("/files")
    async def files(open: str = "") -> None:
        api = await house.enter()
        if api is None:
            return
        with house.frame("Files", api, here="/files"):
            await _Files(api).draw(open)

    @ui.page("/files/{file_id}/content")
    async def content(file_id: str) -> None:
        api = await house.enter()
        if api is None:
            return
        with house.frame("File", api):
            try:
                file = await api.get(path_of("v1", "files", file_id))
                text = await api.content(path_of("v1", "files", file_id, "content"))
            except Refused as error:
                heading("No such file")
                ui.label(str(error))
                return
            heading(file["filename"])
            ui.button("Download", icon="download", on_click=lambda: fetch(file_id))
            verbatim(text[:N_CHARACTERS].decode("utf-8", "replace"))


class _Files:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._seen: object = None
        self._n_wanted = N_PAGE

    async def draw(self, opened: str) -> None:
        heading("Files")
        if self._api.me.changes:
            upload(self._api, self._uploaded)
        self._list = ui.column().classes("w-full gap-2")
        self._older = ui.button("Load older files", on_click=self._load).props("flat")
        self._older.visible = False
        every(3.0, self._look)
        if opened:
            await self._open(opened)

    async def _uploaded(self, file: dict[str, Any]) -> None:
        await self._look(fresh_s=0)
        await self._open(file["id"])

    async def _load(self) -> None:
        self._n_wanted = min(self._n_wanted + N_PAGE, N_MOST)
        try:
            await self._look()
        except Refused as error:
            tell(error)

    async def _look(self, fresh_s: float = FRESH_S) -> None:
        answer = await self._api.get("/v1/files?" + urlencode({"limit": self._n_wanted, "order": "desc"}), fresh_s)
        if answer is self._seen:
            return
        self._seen = answer
        self._older.visible = answer["has_more"] and self._n_wanted < N_MOST
        self._list.clear()
        with self._list:
            if not answer["data"]:
                ui.label("No file yet.").classes("opacity-70")
            for file in answer["data"]:
                with ui.row().classes("w-full items-center gap-3 border-b border-gray-500/20 py-1"):
                    with ui.column().classes("gap-0 min-w-48 flex-1"):
                        ui.label(file["filename"]).classes("font-medium break-all")
                        ui.label(f"{file['id']} · {file['purpose']}").classes("text-xs opacity-70 break-all")
                    ui.label(size(file["bytes"])).classes("text-sm")
                    ui.label(when(file["created_at"])).classes("text-sm opacity-80")
                    _button("visibility", "Look into", file, self._open)
                    _button("download", "Download", file, fetch)
                    if self._api.me.changes:
                        _button("delete", "Delete", file, self._delete)

    async def _open(self, file_id: str) -> None:
        try:
            file = await self._api.get(path_of("v1", "files", file_id))
            if file["bytes"] > LOOKED_BYTES:
                ui.notify(f"{file['filename']} is larger than {size(LOOKED_BYTES)}: download it instead.")
                return
            content = await self._api.content(path_of("v1", "files", file_id, "content"))
        except Refused as error:
            tell(error)
            return
        with dialog_of_page(file["filename"]) as dialog, ui.card().classes("w-full max-w-3xl gap-2"):
            with ui.row().classes("w-full items-center no-wrap"):
                ui.label(file["filename"]).classes("text-lg font-semibold break-all").props("role=heading aria-level=2")
                ui.space()
                ui.button(icon="close", on_click=dialog.close).props('flat dense aria-label="Close"')
            if file["filename"].endswith((".jsonl", ".json")) or file["purpose"] == "fine-tune":
                _draw_rows(first_rows(content))
            else:
                verbatim(content[:N_CHARACTERS].decode("utf-8", "replace"))
        dialog.open()

    async def _delete(self, file_id: str) -> None:
        try:
            name = (await self._api.get(path_of("v1", "files", file_id)))["filename"]
            if not await sure(f"Delete {name} ({file_id})? Jobs that are done keep their models.", "Delete"):
                return
            await self._api.call("DELETE", path_of("v1", "files", file_id))
            await self._look(fresh_s=0)
        except Refused as error:
            tell(error)


def fetch(file_id: str) -> None:
    """Let the browser download a file."""
    ui.download(f"/raw/v1/files/{file_id}/content")


def _button(icon: str, what: str, file: dict[str, Any], call: Any) -> None:
    ui.button(icon=icon, on_click=on_page(lambda: call(file["id"]))).props(f'flat dense aria-label="{what}"').tooltip(what)


def upload(api: Api, uploaded: Any, what: str = "Upload JSONL") -> ui.upload:
    """Draw the button that takes a JSONL file; `uploaded` is called with the file object."""

    async def take(event: events.UploadEventArguments) -> None:
        with event.sender:
            note = ui.notification(f"Uploading {event.file.name} ...", spinner=True, timeout=None)
        try:
            file = await _sent(api, event.file)
        except Refused as error:
            tell(error)
            return
        finally:
            note.dismiss()
            event.sender.reset()  # type: ignore[attr-defined]
        await uploaded(file)

    # Quasar's own field has parts without a name, which a screen reader cannot tell; the button stands for it.
    field = ui.upload(auto_upload=True, on_upload=take).classes("hidden").props('accept=".jsonl,.json"')
    ui.button(what, icon="upload", on_click=lambda: field.run_method("pickFiles")).props("outline")
    return field


async def _sent(api: Api, file: FileUpload) -> dict[str, Any]:
    """Hand an uploaded file on to the server, from disk: it may be large."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as folder:
        path = Path(folder) / "file"
        await file.save(path)
        with path.open("rb") as stream:
            return await api.call("POST", "/v1/files", data={"purpose": "fine-tune"}, files={"file": (file.name, stream)})


def _draw_rows(rows: Sequence[Row]) -> None:
    for row in rows:
        draw_row(row)
    if len(rows) == N_ROWS:
        ui.label(f"These are the first {N_ROWS} rows: the download has them all.").classes("text-sm opacity-80")
    if not rows:
        ui.label("There is no row in this file.").classes("text-sm opacity-80")


def draw_row(row: Row, wrong: Sequence[str] = ()) -> None:
    """Draw a row as a conversation, with what is wrong with it."""
    with ui.card().classes("w-full gap-1").props("flat bordered"):
        ui.label(f"line {row.line}").classes("text-xs opacity-70")
        for problem in wrong or filter(None, (row.problem,)):
            ui.label(problem).classes("text-negative break-words")
        for name, messages in row.parts.items():
            if len(row.parts) > 1 or name != "messages":
                ui.label(name).classes("text-xs uppercase opacity-70")
            for message in messages:
                draw_message(str(message.get("role")), said(message))
        if row.other:
            ui.label(" · ".join(f"{name}: {value}" for name, value in row.other.items())).classes(
                "text-xs opacity-80 break-all"
            )


def draw_message(role: str, text: str) -> ui.label:
    """Draw a message; return the label of its text."""
    colors = {"user": "bg-teal-500/15", "assistant": "bg-indigo-500/15", "system": "bg-gray-500/15"}
    with ui.element("div").classes(f"rounded px-3 py-2 w-full {colors.get(role, 'bg-amber-500/15')}"):
        ui.label(role).classes("text-xs opacity-80")
        return ui.label(text).classes("whitespace-pre-wrap break-words")
