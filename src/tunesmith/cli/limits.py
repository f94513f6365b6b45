"""`tunesmith projects limits`: what one project may have, shown and changed through a running server."""

from typing import Annotated, Any, Final

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, BaseUrl, Client, fail, segment
from tunesmith.cli.keys import N_PAGE, PROJECTS
from tunesmith.cli.output import AsJson, print_json, table

NONE: Final = "none"
DEFAULT: Final = "default"


def limits(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="The project's id or name.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="LIMIT=N", help=f"A number, '{NONE}', or '{DEFAULT}': as for every project."),
    ] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Show what a project may have and has, or change it: training_slots, queued_jobs, files, file_bytes."""
    with Client(base_url) as client:
        path = f"/tunesmith/v1/projects/{segment(_id(client, project))}/limits"
        told = client.call("GET", path)
        if changes:
            own = {name: told["limits"][name] for name in told["own"]}
            told = client.call("PUT", path, _changed(own, changes, told["limits"]))
    if as_json:
        print_json(told)
        return
    rows: list[list[str]] = []
    for name, most in told["limits"].items():
        has = told["usage"].get(name)
        cells = [name, "no limit" if most is None else str(most), "own" if name in told["own"] else "as for every project"]
        rows.append([*cells, "" if has is None else f"has {has}"])
    table(["limit", "most", "whose", "used"], rows)


def _id(client: Client, project: str) -> str:
    """Return the id of the project of a name; what names none is taken for an id."""
    found: list[dict[str, Any]] = []
    has_more, after = True, ""
    while has_more:
        some = client.call("GET", f"{PROJECTS}?limit={N_PAGE}{after}")
        found += some["data"]
        has_more, after = some["has_more"], f"&after={some['last_id']}"
    named = [each["id"] for each in found if each["name"] == project]
    if len(named) > 1 and project not in (each["id"] for each in found):
        fail(f"{len(named)} projects are named '{project}': name one by its id, {' or '.join(named)}.", 2)
    return named[0] if len(named) == 1 else project


def _changed(own: dict[str, int | None], changes: list[str], known: dict[str, Any]) -> dict[str, int | None]:
    """Return the project's own limits with the changes made."""
    for change in changes:
        name, _, value = change.partition("=")
        if name not in known:
            fail(f"'{name}' is no limit of a project; these are: {', '.join(known)}.", 2)
        if value == DEFAULT:
            own.pop(name, None)
        elif value == NONE:
            own[name] = None
        elif value.isascii() and value.isdigit():
            own[name] = int(value)
        else:
            fail(f"'{change}' sets no limit: it is a number, '{NONE}' or '{DEFAULT}', as in --set {name}=20.", 2)
    return own
