"""`tunesmith export`: fetches a model from a running server into a folder or a GGUF file, whole or not at all."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, BaseUrl, Client, fail, segment
from tunesmith.cli.output import AsJson, print_json
from tunesmith.cli.progress import counting
from tunesmith.cli.tars import N_CHUNK_BYTES, temporary, unpack
from tunesmith.core.machine import readable_bytes


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
    output: Annotated[Path, typer.Option("--output", "-o", help="The new folder, or the new GGUF file.")],
    numbers: Annotated[
        Type, typer.Option("--type", help="The numbers of a GGUF file; auto: those that the base is stored in.")
    ] = Type.AUTO,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Fetch a model as files that others load. What is there at the end is whole; an interrupted export leaves nothing."""
    if output.is_dir() and wanted is Format.GGUF:
        fail(f"{output} is a folder, and a GGUF file is to be written: name the file, such as {output / 'model.gguf'}.", 2)
    if output.exists():
        fail(f"{output} is there already and is not written over: name another, or remove it first.", 2)
    path = f"/tunesmith/v1/models/{segment(name)}/export?format={wanted}&type={numbers}"
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with (
            temporary(output) as unfinished,
            Client(base_url) as client,
            client.download(path) as response,
            counting(f"Exporting {name}", n_bytes := int(response.headers["content-length"]), of_bytes=True) as told,
        ):
            chunks = _counted(response.iter_bytes(N_CHUNK_BYTES), told)
            if wanted is Format.GGUF:
                with unfinished.open("xb") as file:
                    file.writelines(chunks)
            else:
                unpack(chunks, unfinished)
            unfinished.rename(output)
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror or error}.")
    if as_json:
        print_json({"model": name, "format": wanted.value, "path": str(output), "bytes": n_bytes})
        return
    typer.echo(f"{output} is written ({readable_bytes(n_bytes)}).")


def _counted(chunks: Iterator[bytes], told: Callable[[int], None]) -> Iterator[bytes]:
    n_done = 0
    for chunk in chunks:
        n_done += len(chunk)
        told(n_done)
        yield chunk
