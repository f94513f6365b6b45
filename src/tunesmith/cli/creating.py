"""`tunesmith jobs create`: local files are sent, a dry run is shown where the server has one, and the job is made."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from tunesmith.cli.client import INTERRUPTED, Client, fail
from tunesmith.cli.job_calls import JOBS
from tunesmith.cli.output import tell
from tunesmith.cli.preflight import FILES, PATH
from tunesmith.cli.stored import upload


def create(client: Client, wanted: dict[str, Any], *, look: bool, ask: bool, quiet: bool) -> dict[str, Any]:
    """Make a job and return it; files that were sent for one that is not made are deleted again."""
    for name in ("model", "training_file"):
        if not wanted.get(name):
            fail(f"A job needs a {name.replace('_', ' ')}: give --{name.replace('_', '-')}, or a body with --from-json.", 2)
    sent = dict(wanted)
    with ExitStack() as undone:
        for name in FILES:
            said = wanted.get(name)
            if isinstance(said, str) and not said.startswith("file-"):
                sent[name] = _send(client, name, said)
                undone.callback(client.extra, "DELETE", f"/v1/files/{sent[name]}")
        if look:
            _look(client, sent, quiet=quiet)
        if ask and sys.stdin.isatty() and sys.stdout.isatty() and not quiet and not _agreed():
            tell("Nothing was created.")
            raise typer.Exit(INTERRUPTED)
        job = client.call("POST", JOBS, sent)
        undone.pop_all()
    return job


def _send(client: Client, name: str, said: str) -> str:
    path = Path(said).expanduser()
    if not path.is_file():
        flag = name.replace("_", "-")
        fail(f"--{flag}: there is no file {said}, and no id begins so (ids begin with file-).", 2)
    file_id = upload(client, path, "fine-tune")["id"]
    tell(f"{path} is sent as {file_id}.")
    return file_id


def _look(client: Client, sent: dict[str, Any], *, quiet: bool) -> None:
    """Show what the job would be; one that would fail its validation is not made."""
    told = client.extra("POST", PATH, sent)
    if told is None:  # a server that has no dry runs
        return
    if not quiet:
        from rich.console import Console

        from tunesmith.cli.report import show_preflight

        show_preflight(Console(stderr=True, highlight=False, soft_wrap=True), told)
    if not told["valid"]:
        error = told["error"] or {"message": "the files have errors"}
        fail(f"Nothing was created, since the job would fail: {error['message']}", error=error)


def _agreed() -> bool:
    try:
        typer.echo("Create the job? [Y/n] ", nl=False, err=True)
        said = sys.stdin.readline()
    except KeyboardInterrupt:
        said = ""
    return said.strip().lower() in ("y", "yes") or said == "\n"
