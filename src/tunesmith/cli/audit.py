"""`tunesmith audit`: who changed what, through a running server."""

from datetime import UTC, datetime
from typing import Annotated, Final
from urllib.parse import urlencode

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, BaseUrl, Client, fail
from tunesmith.cli.output import AsJson, print_json, table

PATH: Final = "/tunesmith/v1/audit"


def audit(
    project: Annotated[str | None, typer.Option(help="Changes of this project alone.")] = None,
    key: Annotated[str | None, typer.Option(help="Changes by the key with this id alone.")] = None,
    since: Annotated[str | None, typer.Option(help="From this time on: 2026-11-26 or 2026-11-26T13:00, in UTC.")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most changes to print.")] = 100,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Begin with the oldest.")] = False,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """List who changed what, the newest change first: time, actor, key, address, project, change, objects."""
    asked = {
        "project_id": project,
        "key_id": key,
        "since": _unix(since),
        "until": _unix(until),
        "limit": limit,
        "order": "asc" if oldest_first else "desc",
    }
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    with Client(base_url) as client:
        found = client.call("GET", f"{PATH}?{query}")
    if as_json:
        print_json(found)
        return
    rows: list[list[str]] = []
    for entry in found["data"]:
        at = datetime.fromtimestamp(entry["created_at"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        who = [entry["actor"], entry["key_id"] or "-", entry["address"] or "-", entry["project_id"]]
        rows.append([at, *who, entry["action"], " ".join(entry["objects"]) or "-"])
    table(["time", "actor", "key", "address", "project", "change", "objects"], rows)


def _unix(said: str | None) -> int | None:
    if said is None:
        return None
    try:
        told = datetime.fromisoformat(said)
    except ValueError:
        fail(f"'{said}' is no time; write 2026-11-26 or 2026-11-26T13:00.", 2)
    return int((told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp())
