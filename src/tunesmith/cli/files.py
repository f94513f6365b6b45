"""`tunesmith files`: a server's files, and help before they are sent; `check`, `split`, `convert` need no server."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, USAGE, BaseUrl, Client, fail, segment
from tunesmith.cli.completion import complete_files
from tunesmith.cli.output import AsJson, print_json, table, tell, when, whole_list

app = typer.Typer(
    help="Send, list, show and fetch files; check, split and convert training files before.", no_args_is_help=True
)

FileId = Annotated[str, typer.Argument(metavar="FILE", help="The file's id, file-….", autocompletion=complete_files)]
Rows = Annotated[Path, typer.Argument(metavar="FILE", help="A JSONL file.")]


class Method(StrEnum):
    """What a file is for."""

    SUPERVISED = "supervised"
    DPO = "dpo"
    REINFORCEMENT = "reinforcement"


class Format(StrEnum):
    """What a file is converted from."""

    PROMPT_COMPLETION = "prompt-completion"
    SHAREGPT = "sharegpt"
    ALPACA = "alpaca"
    CHAT = "chat"


@app.command("list")
def list_files(
    purpose: Annotated[str | None, typer.Option(help="Files of this purpose alone, such as fine-tune.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most files to list.")] = 100,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """List the server's files, the newest first."""
    from urllib.parse import urlencode

    from tunesmith.core.machine import readable_bytes

    query: dict[str, Any] = {"limit": limit} | ({"purpose": purpose} if purpose else {})
    with Client(base_url) as client:
        page = client.call("GET", f"/v1/files?{urlencode(query)}")
    if as_json:
        print_json(page)
        return
    rows = [
        [each["id"], each["filename"], each["purpose"], readable_bytes(each["bytes"]), when(each["created_at"])]
        for each in page["data"]
    ]
    table(["id", "name", "purpose", "size", "created"], rows, shorten=1)
    if page["has_more"]:
        tell(f"There are more: --limit {limit * 10}.")


@app.command()
def show(
    file: FileId,
    rows: Annotated[int, typer.Option(min=0, max=100, help="How many of its first rows to show.")] = 3,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Show a file of the server, with its first rows as conversations."""
    from tunesmith.cli import stored

    with Client(base_url) as client:
        about = client.call("GET", stored.at(file))
        if as_json:
            print_json(about)
            return
        stored.show(about, stored.start_of(client, about) if rows else b"", rows)


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to send.")],
    purpose: Annotated[str, typer.Option(help="What it is for.")] = "fine-tune",
    part_size: Annotated[
        int, typer.Option(min=1, max=64, help="MiB; a larger file is sent in parts of this size, each again if it is lost.")
    ] = 64,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Send a file to the server, and print its id."""
    from tunesmith.cli import stored

    with Client(base_url) as client:
        made = stored.upload(client, file, purpose, part_bytes=part_size * stored.MIB)
    if as_json:
        print_json(made)
    else:
        typer.echo(made["id"])


@app.command()
def download(
    file: FileId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write, - for stdout; left out, its own name, here.")
    ] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Write a file of the server to disk. Overwrites nothing."""
    from tunesmith.cli import stored

    with Client(base_url) as client:
        if str(output) == "-":
            if as_json:
                fail("--json and --output - both take stdout: leave one out.", USAGE)
            stored.print_content(client, file)
            return
        about, path = stored.download(client, file, output)
    if as_json:
        print_json({**about, "path": str(path)})
    else:
        typer.echo(f"{path} is written.")


@app.command()
def delete(
    file: Annotated[list[str], typer.Argument(metavar="FILE…", help="Ids, file-…", autocompletion=complete_files)],
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Delete files of the server."""
    told: list[dict[str, Any]] = []
    with Client(base_url) as client:
        for each in file:
            told.append(client.call("DELETE", f"/v1/files/{segment(each)}"))
            if not as_json:
                typer.echo(f"{each} is deleted.")
    if as_json:
        print_json(told[0] if len(told) == 1 else whole_list(told))


@app.command()
def check(
    file: Rows,
    validation: Annotated[Path | None, typer.Option(help="The validation file, to be checked too and compared.")] = None,
    method: Annotated[Method | None, typer.Option(help="What it is for; left out, its first row tells.")] = None,
    base: Annotated[str, typer.Option(help="The base whose tokens are counted: a folder, or a name.")] = "tunesmith-nano",
    epochs: Annotated[
        int | None, typer.Option(min=1, max=50, help="For the cost; left out, as many as a job takes.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Price of a million trained tokens.")] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Check every row, count tokens, find duplicates and the ten worst rows. Exit code 1 where a job would fail."""
    from tunesmith.cli.checking import check as run

    raise typer.Exit(
        run(file, validation, method=method, base=base, epochs=epochs, price=price, as_json=as_json, base_url=base_url)
    )


@app.command()
def split(
    file: Rows,
    validation_fraction: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of rows for validation.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The same seed makes the same parts.")] = 0,
    training: Annotated[Path | None, typer.Option(help="Where to write; left out, FILE.train.jsonl beside FILE.")] = None,
    validation: Annotated[Path | None, typer.Option(help="Where to write; left out, FILE.valid.jsonl beside FILE.")] = None,
    as_json: AsJson = False,
) -> None:
    """Split a file into training and validation; rows that say the same stay together. Overwrites nothing."""
    from tunesmith.cli.reshaping import split as run

    train = training or file.with_name(f"{file.stem}.train.jsonl")
    valid = validation or file.with_name(f"{file.stem}.valid.jsonl")
    run(file, train, valid, fraction=validation_fraction, seed=seed, as_json=as_json)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A JSONL file, or one JSON array of rows.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write, - for stdout; left out, FILE.chat.jsonl.")
    ] = None,
    from_: Annotated[Format | None, typer.Option("--from", help="The format; left out, the first row tells.")] = None,
    as_json: AsJson = False,
) -> None:
    """Convert prompt/completion pairs, ShareGPT, Alpaca, or a JSON array of chats, to chat JSONL. Overwrites nothing.

    Rows that cannot be converted are left out and told by line; the exit code is 1 then.
    """
    from tunesmith.cli.reshaping import convert as run

    if str(output) == "-" and as_json:
        fail("--json and --output - both take stdout: leave one out.", USAGE)
    raise typer.Exit(run(file, output or file.with_name(f"{file.stem}.chat.jsonl"), from_, as_json=as_json))
