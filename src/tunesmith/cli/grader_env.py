"""`tunesmith grader-env`: the packages that `python` graders may import, in an environment of their own."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith.cli.client import fail
from tunesmith.cli.flags import load
from tunesmith.cli.output import AsJson, print_json, tell
from tunesmith.graders.sandbox.environment import FOLDER, Environment, NotInstalled

app = typer.Typer(help="The packages that python graders may import.", no_args_is_help=True)


@app.callback()
def root() -> None:
    """Hold the verbs; without this typer would make the only one the command itself."""


@app.command()
def install(
    full: Annotated[
        bool, typer.Option("--full", help="All packages of OpenAI's image 2025-05-08, not numpy and rapidfuzz alone.")
    ] = False,
    data_dir: Annotated[Path | None, typer.Option(help="The server's data folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the graders' environment in the data folder, or make it anew. A running server uses it from the next call on."""
    flags: dict[str, Any] = {} if data_dir is None else {"data_dir": data_dir}
    environment = Environment(load(flags).data_dir.expanduser().absolute() / FOLDER)
    try:
        got = environment.install(full=full, tell=tell)
    except (NotInstalled, OSError) as error:
        fail(str(error))
    if as_json:
        print_json({"folder": str(environment.folder), "packages": got})
        return
    typer.echo(f"{environment.folder} holds {', '.join(f'{name} {version}' for name, version in got.items())}.")
