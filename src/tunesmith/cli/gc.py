"""`tunesmith gc` and `tunesmith retention`: what projects let go, through a running server."""

from collections import Counter
from typing import Annotated, Any, Final

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, BaseUrl, Client, fail
from tunesmith.cli.output import AsJson, print_json, table
from tunesmith.core.machine import readable_bytes

GC: Final = "/tunesmith/v1/gc"
RETENTION: Final = "/tunesmith/v1/retention"

app = typer.Typer(help="Say what a project lets go, and when. Nothing goes by itself unless you do.", no_args_is_help=True)

Days = Annotated[int | None, typer.Option(min=1, help="Let those go that are older than so many days.")]


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and leave it.")] = False,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Let go what the projects' policies say, and bytes that nothing names; print each with its bytes."""
    with Client(base_url) as client:
        told = client.call("POST", GC, {"dry_run": dry_run})
    if as_json:
        print_json(told)
        return
    rows = [
        [each["kind"], each["name"] or each["id"], each["project_id"] or "-", readable_bytes(each["bytes"])]
        for each in told["data"]
    ]
    if rows:
        table(["kind", "name", "project", "size"], rows, shorten=1)
    counted = Counter(each["kind"] for each in told["data"])
    what = ", ".join(f"{n} {kind}" for kind, n in sorted(counted.items())) or "nothing"
    typer.echo(f"{'Would let go' if dry_run else 'Let go'} {what}: {readable_bytes(told['bytes'])}.")


@app.command()
def show(as_json: AsJson = False, base_url: BaseUrl = DEFAULT_BASE_URL) -> None:
    """Print what the project lets go."""
    with Client(base_url) as client:
        _print(client.call("GET", RETENTION), as_json=as_json)


@app.command("set")
def set_policy(  # noqa: PLR0913 - its arguments are the command's flags
    files_days: Days = None,
    results_days: Days = None,
    checkpoints_keep: Annotated[
        str | None, typer.Option(help="Of each job's checkpoints keep 'best', 'last', or so many of the newest.")
    ] = None,
    checkpoints_days: Days = None,
    rollouts_keep: Annotated[
        str | None, typer.Option(help="Of what each job sampled keep that of its 'last' step, or of so many.")
    ] = None,
    rollouts_days: Days = None,
    runs_days: Days = None,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Set the whole policy: what is left out here stays for ever."""
    body = {
        "files": {"older_than_days": files_days},
        "results": {"older_than_days": results_days},
        "checkpoints": {"keep": _keep(checkpoints_keep), "older_than_days": checkpoints_days},
        "rollouts": {"keep": _keep(rollouts_keep), "older_than_days": rollouts_days},
        "runs": {"older_than_days": runs_days},
    }
    with Client(base_url) as client:
        _print(client.call("PUT", RETENTION, body), as_json=as_json)


def _keep(said: str | None) -> str | int | None:
    if said is None or said in ("best", "last"):
        return said
    if not said.isdigit():
        fail(f"'{said}' is neither 'best', 'last' nor a number.", 2)
    return int(said)


def _print(policy: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(policy)
        return
    rows: list[list[str]] = []
    for kind in ("files", "results", "checkpoints", "rollouts", "runs"):
        if (rule := policy.get(kind)) is None:  # of a later release than the server
            continue
        kept, days = rule.get("keep"), rule["older_than_days"]
        which = {None: "all", "best": "all but the best of each job", "last": "all but the last of each job"}.get(
            kept, f"all but the newest {kept} of each job"
        )
        said = "stay" if kept is None and days is None else which + (f", once older than {days} days" if days else "")
        rows.append([kind, f"{said}{' go' if said != 'stay' else ''}"])
    table(["kind", "what goes"], rows)
