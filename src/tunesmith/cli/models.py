"""`tunesmith models`: add, list, name and remove models through a running server; `export.py` has the largest verb."""

import time
from typing import Annotated, Any, Final

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, BaseUrl, Client, fail, segment
from tunesmith.cli.export import export
from tunesmith.cli.output import AsJson, print_json, table, when
from tunesmith.core.machine import readable_bytes

PATH: Final = "/tunesmith/v1/models"
ALIASES: Final = "/tunesmith/v1/aliases"
POLL_S: Final = 0.5

app = typer.Typer(
    help="Add, list and remove models of a running server: bases to tune, and models upstream.", no_args_is_help=True
)

app.command()(export)


@app.command()
def add(  # noqa: PLR0913 - its arguments are the command's flags
    name: Annotated[str, typer.Argument(help="The name jobs will ask for: letters, digits, '.', '_' and '-'.")],
    source: Annotated[
        str | None,
        typer.Argument(
            help="A folder in Hugging Face format, or a hub id, OWNER/MODEL[@REVISION]. Leave out for more aliases."
        ),
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option(help="A further name for it, such as gpt-4o-mini; may be repeated.")
    ] = None,
    upstream: Annotated[
        str | None,
        typer.Option(help="The base URL of a server with an OpenAI-compatible API, for a model that it answers for."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="With --upstream: the model's name there, unless it is NAME.")] = None,
    key_env: Annotated[
        str | None,
        typer.Option(help="With --upstream: the variable of the server's environment that holds the key; it is not stored."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="embedding: the folder is a model that makes embeddings, and is not tuned. vllm: the folder is tuned here, "
            "and the vLLM server --upstream answers for it, or one that the server starts (its setting vllm_python)."
        ),
    ] = None,
    adapters_dir: Annotated[
        str | None,
        typer.Option(help="With --kind vllm: the path under which that server sees the folder `blobs` of the data folder."),
    ] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
    wait: Annotated[bool, typer.Option(help="Wait for a download to end; it goes on without you, too.")] = True,
) -> None:
    """Register a base model or a model upstream, or give one that is registered more aliases."""
    body: dict[str, Any] = {"name": name, "source": _absolute(source), "aliases": alias or []}
    if kind is not None:
        body["kind"] = kind
    if upstream is not None:
        body["upstream"] = {"url": upstream, "model": model, "key_env": key_env, "adapters_dir": adapters_dir}
    elif model is not None or key_env is not None or adapters_dir is not None:
        fail("--model, --key-env and --adapters-dir belong to --upstream URL.", 2)
    with Client(base_url) as client:
        base = client.call("POST", PATH, body)
        if base["status"] == "loading" and wait:
            base = _watch(client, base)
    if base["status"] == "failed":
        fail(str(base["detail"]))
    if as_json:
        print_json(base)
        return
    if base["status"] == "loading":
        typer.echo(f"{base['name']} is being downloaded; `tunesmith models list` shows how far it is.")
        return
    also = f" (also {', '.join(base['aliases'])})" if base["aliases"] else ""
    typer.echo(f"{base['name']}{also} is ready: {_describe(base)}.")


@app.command("list")
def list_models(as_json: AsJson = False, base_url: BaseUrl = DEFAULT_BASE_URL) -> None:
    """List the models of the server: bases, models upstream with what they can do, and what was tuned on them."""
    with Client(base_url) as client:
        listed = client.call("GET", "/v1/models")
        # a server that is not Tunesmith has models alone
        bases: list[dict[str, Any]] = (client.extra("GET", PATH) or {"data": []})["data"]
        aliases: list[dict[str, Any]] = (client.extra("GET", ALIASES) or {"data": []})["data"]
    served: list[dict[str, Any]] = listed["data"]
    if as_json:
        print_json({**listed, "bases": bases, "aliases": aliases})
        return
    rows = [[base["name"], ", ".join(base["aliases"]), _state(base), _describe(base), base["source"]] for base in bases]
    others = {each["alias"] for each in aliases} | {base["name"] for base in bases}
    for model in served:
        if model["id"] not in others:
            also = [each["alias"] for each in aliases if each["model"] == model["id"]]
            tuned, made = model["id"].startswith("ft:"), when(model["created"])
            source = model["id"].split(":")[1] if tuned else str(model["owned_by"])
            rows.append([model["id"], ", ".join(also), "ready", f"tuned, {made}" if tuned else made, source])
    table(["name", "aliases", "status", "model", "source"], rows, shorten=3)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="A base or a tuned model (ft:…), or an alias of a base to remove only that.")],
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Remove a model or an alias. What was downloaded or tuned is deleted; your own folders are not touched."""
    with Client(base_url) as client:
        gone = client.call("DELETE", f"{'/v1/models' if name.startswith('ft:') else PATH}/{segment(name)}")
    print_json(gone) if as_json else typer.echo(f"{name} is removed.")


@app.command()
def alias(
    name: Annotated[str, typer.Argument(help="A tuned model or a base, by its name or an alias.")],
    alias: Annotated[str, typer.Argument(help="The further name, such as ft:gpt-4o-mini-2024-07-18:org::abc123.")],
    move: Annotated[bool, typer.Option("--move", help="Take the alias from the model that has it now.")] = False,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Let a further name stand for a model, so that code which asks for that name runs unchanged."""
    with Client(base_url) as client:
        made = client.call("POST", ALIASES, {"alias": alias, "model": name, "move": move})
    print_json(made) if as_json else typer.echo(f"{made['alias']} stands for {made['model']}.")


@app.command()
def unalias(
    alias: Annotated[str, typer.Argument(help="An alias; the model that it stands for stays.")],
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Free an alias."""
    with Client(base_url) as client:
        gone = client.call("DELETE", f"{ALIASES}/{segment(alias)}")
    print_json(gone) if as_json else typer.echo(f"{alias} is free.")


def _absolute(source: str | None) -> str | None:
    """Return a folder of this machine by its whole path, since the server stands in another folder."""
    from pathlib import Path

    if source is not None and Path(source).expanduser().is_dir():
        return str(Path(source).expanduser().resolve())
    return source


def _watch(client: Client, base: dict[str, Any]) -> dict[str, Any]:
    """Follow a download to its end: a bar in a terminal, a line for each tenth otherwise."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    told = -1
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"Downloading {base['name']}", total=None)
        while base["status"] == "loading":
            time.sleep(POLL_S)
            base = client.call("GET", f"{PATH}/{segment(base['name'])}")
            done, total = base["downloaded_bytes"] or 0, base["total_bytes"]
            bar.update(task, completed=done, total=total)
            if total and not console.is_terminal and 10 * done // total > told:
                told = 10 * done // total
                typer.echo(f"Downloading {base['name']}: {readable_bytes(done)} of {readable_bytes(total)}", err=True)
    return base


def _state(base: dict[str, Any]) -> str:
    if base["status"] == "loading" and base["total_bytes"]:
        return f"loading {100 * (base['downloaded_bytes'] or 0) // base['total_bytes']} %"
    return f"{base['status']}: {base['detail']}" if base["status"] == "failed" else base["status"]


def _describe(base: dict[str, Any]) -> str:
    there, serving = base["upstream"], base["serving"]
    if serving is not None:
        how = f"{serving['adapters'] or 0} adapters" if serving["healthy"] else f"not healthy: {serving['detail']}"
        where = f"at {serving['url']}" if serving["url"] else "that starts with the first request"
        return f"{_facts(base)}; {there['model']} of vLLM {where}, {how}"
    if there is not None:
        efforts = ", ".join(there["reasoning_efforts"])
        can = [ability.replace("_", " ") for ability in there["abilities"]]
        return f"{there['model']} upstream: {', '.join(can + [f'reasoning effort ({efforts})'] * bool(efforts))}"
    return _facts(base)


def _facts(base: dict[str, Any]) -> str:
    if not base["n_parameters"]:
        return "-"
    millions = base["n_parameters"] / 1e6
    size = f"{millions / 1000:.1f}B" if millions >= 1000 else f"{millions:.1f}M"
    facts = [
        base["architecture"],
        f"{size} parameters",
        f"{base['context_length']} tokens",
        readable_bytes(base["weights_bytes"]),
    ]
    return ", ".join(facts)
