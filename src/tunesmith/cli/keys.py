"""`tunesmith keys` and `tunesmith projects`: who may call, through a running server and with an admin key."""

import time
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, BaseUrl, Client, segment
from tunesmith.cli.output import AsJson, print_json, table, when, whole_list

KEYS: Final = "/tunesmith/v1/keys"
ADMIN_KEYS: Final = "/v1/organization/admin_api_keys"
PROJECTS: Final = "/v1/organization/projects"
N_PAGE: Final = 100
DAY_S: Final = 24 * 3600

app = typer.Typer(
    help="Keys to the server: made, listed and revoked with an admin key, from TUNESMITH_API_KEY or TUNESMITH_ADMIN_KEY.",
    no_args_is_help=True,
)
projects = typer.Typer(help="The projects that keys open, and what each may have: with an admin key.", no_args_is_help=True)


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    project: Annotated[str | None, typer.Option(help="The project's id; proj_default if left out.")] = None,
    reader: Annotated[bool, typer.Option("--reader", help="It looks and changes nothing.")] = False,
    admin: Annotated[bool, typer.Option("--admin", help="It is every project's, and makes keys and projects.")] = False,
    days: Annotated[int | None, typer.Option(min=1, help="The days after which it expires; never if left out.")] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Make a key, and print it, which is shown this once."""
    if admin and (reader or project):
        raise typer.BadParameter("an admin key is every project's: leave --project and --reader out", param_hint="--admin")
    body: dict[str, Any] = {"name": name}
    if days is not None:
        body |= {"expires_in_seconds": days * DAY_S} if admin else {"expires_at": int(time.time()) + days * DAY_S}
    if not admin:
        body |= {"role": "reader" if reader else "member"} | ({"project_id": project} if project else {})
    with Client(base_url) as client:
        made = client.call("POST", ADMIN_KEYS if admin else KEYS, body)
    if as_json:
        print_json(made)
        return
    typer.echo(f"{made['id']} is made. The key, shown this once:")
    typer.echo(made["value"])


@app.command("list")
def list_keys(
    project: Annotated[str | None, typer.Option(help="The project's id; all keys if left out.")] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """List keys, without what opens: id, role, project, name, last use, end."""
    with Client(base_url) as client:
        found = client.call("GET", KEYS + (f"?project_id={quote(project, safe='')}" if project else ""))
    if as_json:
        print_json(found)
        return
    rows: list[list[str]] = []
    for key in found["data"]:
        used = f"used {when(key['last_used_at'])}" if key["last_used_at"] else "never used"
        ends = f"until {when(key['expires_at'])}" if key["expires_at"] else "no end"
        rows.append([key["id"], key["role"], key["project_id"] or "all", key["name"], key["redacted_value"], used, ends])
    table(["id", "role", "project", "name", "key", "last use", "end"], rows, shorten=3)


@app.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, key_….")],
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Revoke a key; the next request with it is refused."""
    with Client(base_url) as client:
        gone = client.call("DELETE", f"{KEYS}/{segment(key)}")
    print_json(gone) if as_json else typer.echo(f"{key} is revoked.")


@projects.command("create")
def create_project(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Make a project, and print its id."""
    with Client(base_url) as client:
        made = client.call("POST", PROJECTS, {"name": name})
    print_json(made) if as_json else typer.echo(made["id"])


@projects.command("list")
def list_projects(
    archived: Annotated[bool, typer.Option("--archived", help="List those that are archived too.")] = False,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """List projects, oldest first."""
    found: list[dict[str, Any]] = []
    with Client(base_url) as client:
        has_more, after = True, ""
        while has_more:
            some = client.call("GET", f"{PROJECTS}?limit={N_PAGE}{after}{'&include_archived=true' if archived else ''}")
            found += some["data"]
            has_more, after = some["has_more"], f"&after={some['last_id']}"
    if as_json:
        print_json(whole_list(found))
        return
    rows = [[project["id"], project["status"], when(project["created_at"]), project["name"]] for project in found]
    table(["id", "status", "created", "name"], rows)


@projects.command("archive")
def archive_project(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="The project's id, proj_….")],
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Archive a project: its keys are refused from now on, what belongs to it stays."""
    with Client(base_url) as client:
        told = client.call("POST", f"{PROJECTS}/{segment(project)}/archive")
    print_json(told) if as_json else typer.echo(f"{project} is archived.")
