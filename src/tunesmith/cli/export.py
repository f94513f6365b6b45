"""`tunesmith models export`: fetches a model from a running server into a folder or a GGUF file, whole or not at all."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, BaseUrl, Client, fail
from tunesmith.cli.tars import N_CHUNK_BYTES, temporary, unpack
from tunesmith.core.machine import readable_bytes

#: What takes longer is told about.
QUIET_S: Final = 2.0


class Format(StrEnum):
    """What others load."""

    ADAPTER = "adapter"
    MERGED = "merged"
    GGUF = "gguf"


class Type(StrEnum):
    """The numbers of a GGUF file."""

    AUTO = "auto"
    BF16 = "bf16"
    F16 = "f16"
    F32 = "f32"


def export(
    name: Annotated[str, typer.Argument(help="A tuned model, one of its checkpoints, or a base.")],
    wanted: Annotated[
        Format,
        typer.Option(
            "--format",
            help="adapter: a PEFT folder; merged: a whole folder for transformers; gguf: a file for llama.cpp.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="The new folder, or the new GGUF file.")],
    numbers: Annotated[
        Type, typer.Option("--type", help="The numbers of a GGUF file; auto: those that the base is stored in.")
    ] = Type.AUTO,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Fetch a model as files that others load. What is there at the end is whole; an interrupted export leaves nothing."""
    if output.is_dir() and wanted is Format.GGUF:
        fail(f"{output} is a folder, and a GGUF file is to be written: name the file, such as {output / 'model.gguf'}.", 2)
    if output.exists():
        fail(f"{output} is there already and is not written over: name another, or remove it first.", 2)
    path = f"/tunesmith/v1/models/{quote(name, safe='')}/export?format={wanted}&type={numbers}"
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with (
            temporary(output) as unfinished,
            _told(f"Exporting {name}") as told,
            Client(base_url) as client,
            client.download(path) as response,
        ):
            n_bytes = int(response.headers["content-length"])
            chunks = _counted(response.iter_bytes(N_CHUNK_BYTES), lambda n_done: told(n_done, n_bytes))
            if wanted is Format.GGUF:
                with unfinished.open("xb") as file:
                    file.writelines(chunks)
            else:
                unpack(chunks, unfinished)
            unfinished.rename(output)
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror or error}.")
    typer.echo(f"{output} is written ({readable_bytes(n_bytes)}).")


def _counted(chunks: Iterator[bytes], told: Callable[[int], None]) -> Iterator[bytes]:
    n_done = 0
    for chunk in chunks:
        n_done += len(chunk)
        told(n_done)
        yield chunk


@contextmanager
def _told(what: str) -> Generator[Callable[[int, int], None]]:
    """Yield what tells of progress once it takes long: a bar in a terminal, a line for each tenth otherwise."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    begun, lines = time.monotonic(), [0]
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None)

        def tell(n_done: int, n_bytes: int) -> None:
            bar.update(task, completed=n_done, total=n_bytes)
            tenth = 10 * n_done // n_bytes
            if not console.is_terminal and tenth > lines[0] and time.monotonic() - begun > QUIET_S:
                lines[0] = tenth
                typer.echo(f"{what}: {readable_bytes(n_done)} of {readable_bytes(n_bytes)}", err=True)

        yield tell
