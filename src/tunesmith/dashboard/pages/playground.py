"""The playground: one conversation, answered by two models side by side as their tokens come."""

import asyncio
from typing import Any

from nicegui import ui

from tunesmith.dashboard.api import Api, Refused
from tunesmith.dashboard.house import House, heading, only_changing, tell
from tunesmith.dashboard.pages.files import draw_message
from tunesmith.dashboard.shapes import newest


def add(house: House) -> None:
    """Give the page its path."""

    @ui.page("/playground")
    async def playground(left: str = "", right: str = "") -> None:
        api = await house.enter()
        if api is None:
            return
        with house.frame("Playground", api, here="/playground"):
            if not only_changing(api, "Playground"):
                return
            try:
                models = [model["id"] for model in (await api.get("/v1/models"))["data"]]
            except Refused as error:
                tell(error)
                return
            models += [each for each in (left, right) if each and each not in models]
            right = right or newest(models)
            left = left or (right.split(":")[1] if right.startswith("ft:") else models[0])
            _Playground(api, models).draw(left if left in models else models[0], right)


class _Playground:
    def __init__(self, api: Api, models: list[str]) -> None:
        self._api = api
        self._models = models
        self._messages: list[dict[str, str]] = []
        self._asking: asyncio.Task[None] | None = None

    def draw(self, left: str, right: str) -> None:
        heading("Playground")
        with ui.element("div").classes("grid grid-cols-1 md:grid-cols-2 gap-3 w-full"):
            self._chosen = [
                ui.select(self._models, label=label, value=value, with_input=True).props("outlined dense")
                for label, value in (("Left model", left), ("Right model", right))
            ]
        with ui.expansion("Settings", icon="tune").classes("w-full"), ui.row().classes("gap-4 items-start"):
            self._system = ui.textarea("System message").props("outlined dense autogrow").classes("w-96 max-w-full")
            self._temperature = ui.number("Temperature", value=0.0, min=0, max=2, step=0.1).props("outlined dense")
            self._temperature.classes("w-32")
            self._n_tokens = ui.number("Most tokens", min=1, precision=0, placeholder="as many as it likes").props(
                "outlined dense"
            )
        self._talk = ui.column().classes("w-full gap-3").props('role=log aria-live="polite"')
        with ui.row().classes("w-full items-end gap-2 no-wrap"):
            self._text = ui.textarea("Message").props("outlined dense autogrow").classes("flex-1")
            self._text.on("keydown.enter.exact.prevent", self._send)
            self._button = ui.button("Send", icon="send", on_click=self._send)
            self._stop = ui.button("Stop", icon="stop", on_click=self._halt).props("outline")
            self._stop.visible = False
            ui.button("Clear", on_click=self._clear).props("flat")

    def _halt(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    def _clear(self) -> None:
        self._halt()
        self._messages = []
        self._talk.clear()

    async def _send(self) -> None:
        text = (self._text.value or "").strip()
        if not text or (self._asking is not None and not self._asking.done()):
            return
        self._text.value = ""
        self._button.disable()
        self._stop.visible = True
        try:
            self._asking = asyncio.create_task(self._ask(text))
            await asyncio.wait([self._asking])
            if not self._asking.cancelled() and (error := self._asking.exception()) is not None:
                if not isinstance(error, Refused):
                    raise error
                tell(error)
        finally:
            self._button.enable()
            self._stop.visible = False

    async def _ask(self, text: str) -> None:
        talk = self._messages
        talk.append({"role": "user", "content": text})
        with self._talk:
            draw_message("user", text)
            with ui.element("div").classes("grid grid-cols-1 md:grid-cols-2 gap-3 w-full"):
                said = [draw_message(str(select.value), "…") for select in self._chosen]
        system = [{"role": "system", "content": self._system.value}] if self._system.value else []
        body: dict[str, Any] = {
            "models": [select.value for select in self._chosen],
            "messages": [*system, *talk],
            "temperature": self._temperature.value,
            "stream": True,
        }
        if self._n_tokens.value:
            body["max_completion_tokens"] = int(self._n_tokens.value)
        whole = ["", ""]
        try:
            async for chunk in self._api.stream("/tunesmith/v1/compare", body):
                index = chunk["index"]
                if "error" in chunk:
                    said[index].text = str(chunk["error"].get("message"))
                for choice in chunk["chunk"]["choices"] if "chunk" in chunk else ():
                    whole[index] += choice["delta"].get("content") or ""
                    said[index].text = whole[index] or "…"
        finally:
            for label in said:
                if label.text == "…":
                    label.text = "(no word)"
            # What goes on from here is the right model's conversation: the one that is being judged, as far as it came.
            if whole[1]:
                talk.append({"role": "assistant", "content": whole[1]})
            else:
                talk.pop()
