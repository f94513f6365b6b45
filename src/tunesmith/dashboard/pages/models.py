"""The page of models: bases and tuned ones, with export, sharing and delete."""

from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from tunesmith.dashboard.api import FRESH_S, Api, Refused, path_of
from tunesmith.dashboard.house import House, every, heading, section, sure, tell
from tunesmith.dashboard.pages.sharing import share
from tunesmith.dashboard.shapes import number, size, when
from tunesmith.dashboard.widgets import Form, act

FORMATS = {"adapter": "Adapter (PEFT)", "merged": "Merged (safetensors)", "gguf": "GGUF (llama.cpp)"}


def add(house: House) -> None:
    """Give the page its path."""

    @ui.page("/models")
    async def models() -> None:
        api = await house.enter()
        if api is None:
            return
        with house.frame("Models", api, here="/models"):
            _Models(api).draw()


class _Models:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._seen: object = None

    def draw(self) -> None:
        heading("Models")
        section("Tuned models")
        self._tuned = ui.column().classes("w-full gap-2")
        section("Base models")
        self._bases = ui.column().classes("w-full gap-2")
        every(3.0, self._look)

    async def _look(self, fresh_s: float = FRESH_S) -> None:
        found = await self._api.get("/v1/models", fresh_s)
        bases = await self._api.get("/tunesmith/v1/models")
        aliases = await self._api.get("/tunesmith/v1/aliases")
        if (id(found), id(bases), id(aliases)) == self._seen:
            return
        self._seen = (id(found), id(bases), id(aliases))
        tuned = [model for model in found["data"] if model["id"].startswith("ft:")]
        names = {alias["alias"]: alias["model"] for alias in aliases["data"]}
        self._tuned.clear()
        with self._tuned:
            if not tuned:
                ui.label("No tuned model yet: it appears here when its job has succeeded.").classes("opacity-70")
            for model in tuned:  # the server lists the newest first
                self._draw_tuned(model, [alias for alias, name in names.items() if name == model["id"]])
        self._bases.clear()
        with self._bases:
            for base in bases["data"]:
                _draw_base(base)

    def _draw_tuned(self, model: Mapping[str, Any], aliases: list[str]) -> None:
        name = model["id"]
        with ui.row().classes("w-full items-center gap-3 border-b border-gray-500/20 py-1"):
            with ui.column().classes("gap-0 min-w-48 flex-1"):
                ui.label(name).classes("font-mono break-all")
                told = [when(model["created"]), *(f"also called {alias}" for alias in aliases)]
                ui.label(" · ".join(told)).classes("text-xs opacity-70 break-all")
            if self._api.me.changes:
                ui.link("Try it", "/playground?" + urlencode({"right": name}))
                ui.link("Train on", "/new?" + urlencode({"model": name}))
            export = ui.dropdown_button("Export", icon="download", auto_close=True)
            with export.props(f'flat dense no-caps toggle-aria-label="Export {name}"'):
                for form, title in FORMATS.items():
                    # A page of its own: what the server refuses, it says there.
                    address = f"/raw{path_of('tunesmith', 'v1', 'models', name, 'export')}?format={form}"
                    link = ui.link(title, address, new_tab=True)
                    link.classes("block px-4 py-3 no-underline text-inherit hover:bg-teal-500/10").props("role=menuitem")
            if self._api.me.administers:
                act("Share", "group", partial(share, self._api, name), about=name)
            if self._api.me.changes:
                act("Names", "label", partial(self._name, name, aliases), about=name)
                act("Delete", "delete", partial(self._delete, name), color="negative", about=name)

    async def _name(self, model: str, aliases: list[str]) -> None:
        form = Form[bool](f"Further names of {model}")
        with form.body:
            ui.label("What asks for one of these names is answered by this model.").classes("text-sm")
            keep = {alias: ui.checkbox(alias, value=True) for alias in aliases}
            new = ui.input("New name").props("outlined dense").classes("w-full")
            move = ui.checkbox("Take it from the model that has it")

        async def save() -> bool:
            for alias, box in keep.items():
                if not box.value:
                    await self._api.call("DELETE", path_of("tunesmith", "v1", "aliases", alias))
            if alias := (new.value or "").strip():
                body = {"alias": alias, "model": model, "move": bool(move.value)}
                await self._api.call("POST", "/tunesmith/v1/aliases", body)
            return True

        await form.done("Save", save)

    async def _delete(self, name: str) -> None:
        question = f"Delete {name}? It stops answering at once. The record of its job stays."
        if not await sure(question, "Delete"):
            return
        try:
            await self._api.call("DELETE", path_of("v1", "models", name))
            await self._look(0)
        except Refused as error:
            tell(error)


def _draw_base(base: Mapping[str, Any]) -> None:
    with ui.row().classes("w-full items-center gap-3 border-b border-gray-500/20 py-1"):
        with ui.column().classes("gap-0 min-w-48 flex-1"):
            ui.label(base["name"]).classes("font-mono break-all")
            told = [
                base["kind"],
                base["architecture"],
                f"{number(base['n_parameters'])} parameters" if base["n_parameters"] else None,
                f"context {number(base['context_length'])}" if base["context_length"] else None,
                size(base["weights_bytes"]) if base["weights_bytes"] else None,
                *(f"also called {alias}" for alias in base["aliases"]),
            ]
            ui.label(" · ".join(filter(None, told))).classes("text-xs opacity-70")
            if base["detail"]:
                ui.label(base["detail"]).classes("text-sm text-negative")
        ui.badge(base["status"]).props("color=teal-9" if base["status"] == "ready" else "color=amber-10")
