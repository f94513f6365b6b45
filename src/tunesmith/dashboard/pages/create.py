"""The form that creates a job: files with a preview, parameters, what it will take, and the same request as code."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

from nicegui import ui
from nicegui.elements.mixins.validation_element import ValidationElement

from tunesmith.dashboard import snippets
from tunesmith.dashboard.api import FRESH_S, Api, Refused, path_of
from tunesmith.dashboard.house import House, heading, only_changing, section, tell, verbatim
from tunesmith.dashboard.pages import forecast
from tunesmith.dashboard.pages.files import LOOKED_BYTES, draw_row, upload
from tunesmith.dashboard.pages.graders import EXAMPLE, code
from tunesmith.dashboard.rows import first_rows, rows_at
from tunesmith.dashboard.shapes import pairs, size

#: The hyperparameters of each method; what is left empty is `auto`.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "supervised": ("n_epochs", "batch_size", "learning_rate_multiplier"),
    "dpo": ("n_epochs", "batch_size", "learning_rate_multiplier", "beta"),
    "reinforcement": (
        "n_epochs", "batch_size", "learning_rate_multiplier", "compute_multiplier", "eval_interval", "eval_samples",
    ),
}  # fmt: skip
WHOLE: Final = ("n_epochs", "batch_size", "eval_interval", "eval_samples")
N_PREVIEW: Final = 5
#: How many wrong rows are shown as rows; the table above them has more.
N_WRONG: Final = 20
FIRST: Final = "First rows of the training file"
WRONG: Final = "Rows of the training file that something is wrong with"


def add(house: House) -> None:
    """Give the page its path."""

    @ui.page("/new")
    async def create(model: str = "") -> None:
        api = await house.enter()
        if api is None:
            return
        with house.frame("New job", api, here="/new"):
            if only_changing(api, "New job"):
                await _Form(api, str(ui.context.client.request.base_url)).draw(model)


class _Form:
    def __init__(self, api: Api, pages_url: str) -> None:
        self._api = api
        # As the visitor reaches the server, which may be by another name than its own.
        base_url = f"{pages_url.rstrip('/').removesuffix('/dashboard')}/v1"
        self._server = snippets.Server(base_url, keyed=api.me.key_id is not None, project=api.project)
        self._numbers: dict[str, ui.number] = {}
        self._content = b""

    async def draw(self, model: str) -> None:
        heading("New job")
        try:
            models = [each["id"] for each in (await self._api.get("/v1/models"))["data"]]
            files = await self._files()
        except Refused as error:
            tell(error)
            return
        with ui.element("div").classes("grid grid-cols-1 lg:grid-cols-2 gap-6 w-full"):
            with ui.column().classes("w-full gap-3"):
                self._draw_fields(models, model if model in models else models[0], files)
            with ui.column().classes("w-full gap-3"):
                section("The same request as code")
                with ui.tabs().props("align=left dense") as tabs:
                    ui.tab("Python")
                    ui.tab("curl")
                with ui.tab_panels(tabs, value="Python", animated=False).classes("w-full bg-transparent"):
                    with ui.tab_panel("Python").classes("px-0"):
                        self._python = verbatim()
                    with ui.tab_panel("curl").classes("px-0"):
                        self._curl = verbatim()
                self._previewed = section(FIRST)
                self._preview = ui.column().classes("w-full gap-2")
                with self._preview:
                    ui.label("Choose a training file, or upload one, and its rows are shown here.").classes(
                        "text-sm opacity-70"
                    )
        self._changed()

    def _draw_fields(self, models: list[str], model: str, files: dict[str, str]) -> None:
        self._model = ui.select(models, label="Model", value=model, with_input=True, on_change=self._changed)
        self._method = ui.toggle(list(FIELDS), value="supervised", on_change=self._method_changed)
        self._training = ui.select(files, label="Training file", on_change=self._file_changed)
        self._validation = ui.select(files, label="Validation file", clearable=True, on_change=self._changed)
        for field in (self._model, self._training, self._validation):
            field.props("outlined dense").classes("w-full")
        with ui.row().classes("gap-3"):
            upload(self._api, partial(self._uploaded, self._training), "Upload training file")
            upload(self._api, partial(self._uploaded, self._validation), "Upload validation file")
        self._suffix = ui.input("Suffix (a name for the model)", on_change=self._changed)
        self._metadata = ui.input("Metadata (key=value, …)", on_change=self._changed)
        self._seed = ui.number("Seed", min=0, precision=0, on_change=self._changed)
        for field in (self._suffix, self._metadata, self._seed):
            field.props("outlined dense").classes("w-full")
        section("Hyperparameters")
        ui.label("What is left empty is chosen by the server (auto).").classes("text-sm opacity-70")
        self._block = ui.element("div").classes("grid grid-cols-2 gap-3 w-full")
        self._grader_part = ui.column().classes("w-full")
        with self._grader_part:
            section("Grader")
            self._grader = code("Grader (JSON)", json.dumps(EXAMPLE, indent=2))
            self._grader.on_value_change(self._changed)
        self._problem = ui.label().classes("text-negative whitespace-pre-wrap").props("role=alert")
        with ui.row():
            create = ui.button("Create job", icon="rocket_launch", on_click=self._create)
            self._buttons = [create, ui.button("Check first", icon="fact_check", on_click=self._check).props("outline")]
        self._report = ui.column().classes("w-full gap-1")
        self._draw_numbers()

    def _draw_numbers(self) -> None:
        self._block.clear()
        self._numbers = {}
        with self._block:
            for name in FIELDS[self._method.value]:
                self._numbers[name] = ui.number(
                    name, min=0, precision=0 if name in WHOLE else None, placeholder="auto", on_change=self._changed
                ).props("outlined dense clearable")
        self._grader_part.visible = self._method.value == "reinforcement"

    def _method_changed(self) -> None:
        self._draw_numbers()
        self._changed()

    async def _files(self, fresh_s: float = FRESH_S) -> dict[str, str]:
        asked = urlencode({"purpose": "fine-tune", "limit": 1000, "order": "desc"})
        found = (await self._api.get(f"/v1/files?{asked}", fresh_s))["data"]
        return {file["id"]: f"{file['filename']} ({size(file['bytes'])}, …{file['id'][-6:]})" for file in found}

    async def _uploaded(self, field: ui.select, file: dict[str, Any]) -> None:
        files = await self._files(fresh_s=0)  # with those that were uploaded just before
        self._training.set_options(files)
        self._validation.set_options(files)
        field.value = file["id"]

    async def _file_changed(self) -> None:
        self._changed()
        self._preview.clear()
        self._previewed.text, self._content = FIRST, b""
        chosen = self._training.value
        if not chosen:
            return
        try:
            file = await self._api.get(path_of("v1", "files", chosen))
            if file["bytes"] > LOOKED_BYTES:
                with self._preview:
                    ui.label(f"It is larger than {size(LOOKED_BYTES)}: no row of it is shown.").classes("text-sm opacity-70")
                return
            content = await self._api.content(path_of("v1", "files", chosen, "content"))
        except Refused as error:
            tell(error)
            return
        if chosen != self._training.value:  # another was chosen meanwhile
            return
        self._content = content
        self._preview.clear()
        with self._preview:
            for row in first_rows(self._content, N_PREVIEW):
                draw_row(row)

    def _body(self) -> dict[str, Any]:
        """Return the request.

        Raises:
            ValueError: a field cannot be read; the text says which.
        """
        grader = None
        if self._method.value == "reinforcement":
            try:
                grader = json.loads(self._grader.value or "")
            except ValueError as error:
                raise ValueError(f"The grader is not JSON: {error}") from error
        return snippets.request(
            self._method.value,
            model=self._model.value,
            training_file=self._training.value,
            validation_file=self._validation.value,
            hyperparameters={
                name: int(field.value) if name in WHOLE else field.value
                for name, field in self._numbers.items()
                if field.value is not None
            },
            grader=grader,
            suffix=self._suffix.value,
            seed=None if self._seed.value is None else int(self._seed.value),
            metadata=pairs(self._metadata.value or ""),
        )

    def _changed(self) -> None:
        for field in self._fields().values():
            field.error = None
        self._report.clear()  # it was about another request
        try:
            body = self._body()
        except ValueError as error:
            self._problem.text = str(error)
            return
        self._problem.text = ""
        self._python.text = snippets.python(self._server, body)
        self._curl.text = snippets.curl(self._server, body)

    async def _asked(self, path: str) -> dict[str, Any] | None:
        self._problem.text = ""
        for button in self._buttons:
            button.disable()
        try:
            return await self._api.call("POST", path, self._body())
        except ValueError as error:
            self._problem.text = str(error)
        except Refused as error:
            self._problem.text = str(error)
            self._mark(str((error.body.get("error") or {}).get("param") or ""), str(error))
        finally:
            for button in self._buttons:
                button.enable()
        return None

    def _mark(self, param: str, why: str) -> None:
        """Show at the field that a refusal names what is wrong with it."""
        for name, field in self._fields().items():
            if param == name or param.startswith((f"{name}.", f"{name}[")):
                field.error = why

    def _fields(self) -> dict[str, ValidationElement[Any]]:
        block = f"method.{self._method.value}"
        return {
            "model": self._model,
            "training_file": self._training,
            "validation_file": self._validation,
            "suffix": self._suffix,
            "metadata": self._metadata,
            "seed": self._seed,
            f"{block}.grader": self._grader,
            **{f"{block}.hyperparameters.{name}": field for name, field in self._numbers.items()},
        }

    async def _create(self) -> None:
        job = await self._asked("/v1/fine_tuning/jobs")
        if job is not None:
            ui.navigate.to(f"/jobs/{job['id']}")

    async def _check(self) -> None:
        note = ui.notification("Checking ...", spinner=True, timeout=None)
        try:
            found = await self._asked("/tunesmith/v1/fine_tuning/preflight")
        finally:
            note.dismiss()
        if found is not None:
            self._report.clear()
            with self._report:
                forecast.draw(found)
            self._show_wrong(found["errors"])

    def _show_wrong(self, errors: list[dict[str, Any]]) -> None:
        """Show the rows of the training file that something is wrong with, each with what it is."""
        wrong = dict[int, list[str]]()
        for error in errors:
            if error["param"] == "training_file" and error["line"]:
                told = f"{error['field']}: {error['message']}" if error["field"] else error["message"]
                wrong.setdefault(error["line"], []).append(told)
        some = list(wrong)[:N_WRONG]
        if not some or not self._content:
            return
        self._previewed.text = WRONG
        self._preview.clear()
        with self._preview:
            for row in rows_at(self._content, some):
                draw_row(row, wrong[row.line])
