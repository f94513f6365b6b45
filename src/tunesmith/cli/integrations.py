"""`tunesmith integrations`: the keys that an organisation registers for its jobs, through a running server."""

import sys
from typing import Annotated, Any, Final

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, BaseUrl, Client, fail
from tunesmith.cli.output import AsJson, print_json, table

PATH: Final = "/tunesmith/v1/integrations"

app = typer.Typer(help="Let jobs tell Weights & Biases of their training: the organisation's key.", no_args_is_help=True)


@app.command()
def wandb(
    server: Annotated[str | None, typer.Option(help="The address of a Weights & Biases server of your own.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the key.")] = False,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Register the key of Weights & Biases: asked for, or read from stdin, or WANDB_API_KEY. It is stored encrypted."""
    with Client(base_url) as client:
        if remove:
            gone = client.call("DELETE", f"{PATH}/wandb")
            print_json(gone) if as_json else typer.echo("The key of Weights & Biases is forgotten.")
            return
        body: dict[str, Any] = {"api_key": _key()}
        made = client.call("PUT", f"{PATH}/wandb", body if server is None else {**body, "base_url": server})
    if as_json:
        print_json(made)
        return
    typer.echo(f"The key is registered for {made['base_url'] or 'wandb.ai'}; it is shown nowhere.")


@app.command("list")
def list_integrations(as_json: AsJson = False, base_url: BaseUrl = DEFAULT_BASE_URL) -> None:
    """List what is registered, without its keys."""
    with Client(base_url) as client:
        found = client.call("GET", PATH)
    if as_json:
        print_json(found)
        return
    table(["id", "server"], [[each["id"], each["base_url"] or "wandb.ai"] for each in found["data"]])


def _key() -> str:
    """Return the key, which no command line may hold: everyone on the machine can read that."""
    import getpass
    import os

    if key := os.environ.get("WANDB_API_KEY", "").strip():
        return key
    said = getpass.getpass("Key of Weights & Biases: ") if sys.stdin.isatty() else sys.stdin.read()
    if not said.strip():
        fail("no key: pipe it in, or set WANDB_API_KEY.", 2)
    return said.strip()
