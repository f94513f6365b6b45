"""The page of storage, for admins: what lies on the disk, what a project lets go, and what a collection would free."""

import re
from collections.abc import Mapping
from typing import Any, Final

from nicegui import ui

from tunesmith.dashboard.api import Api, Refused
from tunesmith.dashboard.house import House, every, heading, only_admins, section, sure, tell
from tunesmith.dashboard.shapes import number, size
from tunesmith.dashboard.widgets import fill, table, whole

RETENTION: Final = "/tunesmith/v1/retention"
GC: Final = "/tunesmith/v1/gc"
STORAGE: Final = "/tunesmith/v1/storage"
TITLES: Final = {"files": "Files", "models": "Models", "checkpoints": "Earlier checkpoints"}
#: The kinds that a policy knows, with what `keep` may be beside a number.
KINDS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "files": ("Uploaded files", ()),
    "results": ("Result files", ()),
    "checkpoints": ("Earlier checkpoints of ended jobs", ("best", "last")),
    "rollouts": ("Sampled answers of ended jobs", ("last",)),
    "runs": ("Runs of trackers kept here, of ended jobs", ()),
}
#: Kinds of what a collection lets go.
GOING: Final = {
    "file": "Files",
    "result_file": "Result files",
    "checkpoint": "Checkpoints",
    "rollouts": "Sampled answers",
    "run": "Runs of trackers",
    "orphan": "Bytes that no row names",
}
#: How many things that would go are listed.
N_LISTED: Final = 200


def add(house: House) -> None:
    """Give the page its path."""

    @ui.page("/storage")
    async def storage() -> None:
        api = await house.enter()
        if api is None:
            return
        with house.frame("Storage", api, here="/storage"):
            if only_admins(api):
                await _Storage(api).draw()


class _Storage:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._policy: dict[str, tuple[ui.number, ui.input | None]] = {}

    async def draw(self) -> None:
        heading("Storage")
        section("On the disk")
        self._disk = ui.label()
        self._free = ui.linear_progress(show_value=False).props('aria-label="Part of the disk that is taken" size=10px')
        self._kinds = table(("kind", "What"), ("n", "How many"), ("bytes", "Bytes"), key="kind")
        every(10.0, self._look)
        section("What a collection would free")
        ui.label("What the policies of all projects let go, and bytes that no row names and that are a day old.")
        with ui.row():
            ui.button("Look", icon="search", on_click=self._would_go).props("outline")
            self._collect = ui.button("Collect now", icon="delete_sweep", on_click=self._go, color="negative")
            self._collect.visible = False
        self._told = ui.label().props("role=status")
        self._going = table(("kind", "What"), ("n", "How many"), ("bytes", "Bytes"), key="kind")
        self._going.visible = False
        self._items = table(("name", "Name"), ("kind", "What"), ("project", "Project"), ("bytes", "Bytes"), key="id")
        self._items.visible = False
        section(f"What the project {self._api.me.project} lets go")
        ui.label("Empty fields: it stays for ever. Final models, and what an unfinished job needs, stay in any case.")
        try:
            self._draw_policy(await self._api.get(RETENTION, 0))
        except Refused as error:
            tell(error)

    async def _look(self) -> None:
        figures = _figures((await self._api.content("/metrics")).decode())
        total, free = figures.get("tunesmith_disk_bytes", 0.0), figures.get("tunesmith_disk_free_bytes", 0.0)
        self._disk.text = f"{size(free)} of {size(total)} are free"
        self._free.value = round(1 - free / total, 4) if total else 0.0
        projects = (await self._api.get("/v1/organization/projects?limit=100&include_archived=true", 10.0))["data"]
        rows: list[dict[str, Any]] = [
            {"kind": "Database", "n": "", "bytes": size(figures.get("tunesmith_database_bytes"))},
        ]
        bases = [each for each in (await self._api.get("/tunesmith/v1/models", 10.0))["data"] if each["weights_bytes"]]
        n_bytes = sum(each["weights_bytes"] for each in bases)
        rows.append({"kind": "Base models", "n": number(len(bases)), "bytes": size(n_bytes)})
        stored = {each["project_id"]: each for each in (await self._api.get(STORAGE, 10.0))["data"]}
        for project in filter(lambda each: each["id"] in stored, projects):
            for kind in ("files", "models", "checkpoints"):
                n, n_bytes = stored[project["id"]][kind]["n"], stored[project["id"]][kind]["bytes"]
                if n or kind == "files":
                    rows.append({"kind": f"{TITLES[kind]} of {project['name']}", "n": number(n), "bytes": size(n_bytes)})
        fill(self._kinds, rows)

    async def _asked(self, *, dry_run: bool) -> Mapping[str, Any] | None:
        try:
            return await self._api.call("POST", GC, {"dry_run": dry_run})
        except Refused as error:
            tell(error)
            return None

    async def _would_go(self) -> None:
        found = await self._asked(dry_run=True)
        if found is not None:
            self._show(found)
            self._told.text = f"{size(found['bytes'])} would go." if found["data"] else "Nothing would go."
            self._collect.visible = bool(found["data"])

    async def _go(self) -> None:
        if not await sure(f"Collect? {self._told.text} It goes for good.", "Collect"):
            return
        found = await self._asked(dry_run=False)
        if found is not None:
            self._show(found)
            self._told.text = f"{size(found['bytes'])} went."
            self._collect.visible = False

    def _show(self, found: Mapping[str, Any]) -> None:
        kinds = {kind: [each for each in found["data"] if each["kind"] == kind] for kind in GOING}
        fill(
            self._going,
            [
                {"kind": GOING[kind], "n": number(len(each)), "bytes": size(sum(one["bytes"] for one in each))}
                for kind, each in kinds.items()
                if each
            ],
        )
        fill(
            self._items,
            [
                {
                    "id": f"{each['kind']} {each['key']} {each['id']}",
                    "name": each["name"] or each["id"] or each["key"],
                    "kind": GOING[each["kind"]],
                    "project": each["project_id"] or "",
                    "bytes": size(each["bytes"]),
                }
                for each in found["data"][:N_LISTED]
            ],
        )
        self._going.visible = self._items.visible = bool(found["data"])

    def _draw_policy(self, policy: Mapping[str, Any]) -> None:
        for kind, (title, words) in KINDS.items():
            rule = policy[kind]
            with ui.row().classes("w-full items-center gap-3"):
                ui.label(title).classes("w-72")
                days = ui.number(
                    "Older than … days", value=rule["older_than_days"], min=1, precision=0, placeholder="for ever"
                )
                days.props(f'outlined dense stack-label aria-label="{title}: older than … days"').classes("w-44")
                keep = None
                if words:
                    label = f"Keep ({', '.join(words)}, or how many)"
                    keep = ui.input(label, value="" if rule["keep"] is None else str(rule["keep"]), placeholder="all")
                    keep.props(f'outlined dense stack-label aria-label="{title}: keep"').classes("w-60")
                self._policy[kind] = (days, keep)
        ui.button("Save", icon="save", on_click=self._save).props("outline")

    async def _save(self) -> None:
        body: dict[str, dict[str, Any]] = {}
        for kind, (days, keep) in self._policy.items():
            body[kind] = {"older_than_days": whole(days)}
            if keep is not None:
                text = (keep.value or "").strip()
                body[kind]["keep"] = int(text) if text.isdecimal() else text or None
        try:
            await self._api.call("PUT", RETENTION, body)
        except Refused as error:
            tell(error)
            return
        ui.notify("It is applied within the hour.", type="positive")


def _figures(text: str) -> dict[str, float]:
    """Return the figures without labels of a text in Prometheus's format."""
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}
