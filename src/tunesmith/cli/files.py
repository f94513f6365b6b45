"""`tunesmith files`: help with training files before they are sent; `check`, `split` and `convert` work without a server."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, BaseUrl
from tunesmith.cli.output import AsJson

app = typer.Typer(help="Check, split and convert training files.", no_args_is_help=True)

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
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write; left out, FILE.chat.jsonl.")] = None,
    from_: Annotated[Format | None, typer.Option("--from", help="The format; left out, the first row tells.")] = None,
    as_json: AsJson = False,
) -> None:
    """Convert prompt/completion pairs, ShareGPT, Alpaca, or a JSON array of chats, to chat JSONL. Overwrites nothing.

    Rows that cannot be converted are left out and told by line; the exit code is 1 then.
    """
    from tunesmith.cli.reshaping import convert as run

    raise typer.Exit(run(file, output or file.with_name(f"{file.stem}.chat.jsonl"), from_, as_json=as_json))
