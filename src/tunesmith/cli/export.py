"""`tunesmith models export`: fetches a model from a running server into a folder or a GGUF file, whole or not at all."""

import tarfile
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from enum import StrEnum
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import quote

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, BaseUrl, Client, fail
from tunesmith.core.machine import readable_bytes

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: What takes longer is told about.
QUIET_S: Final = 2.0
_N_CHUNK_BYTES: Final = 1024 * 1024


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
            _temporary(output) as unfinished,
            _told(f"Exporting {name}") as told,
            Client(base_url) as client,
            client.download(path) as response,
        ):
            n_bytes = int(response.headers["content-length"])
            chunks = _counted(response.iter_bytes(_N_CHUNK_BYTES), lambda n_done: told(n_done, n_bytes))
            if wanted is Format.GGUF:
                with unfinished.open("xb") as file:
                    file.writelines(chunks)
            else:
                _unpack(chunks, unfinished)
            unfinished.rename(output)
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror or error}.")
    typer.echo(f"{output} is written ({readable_bytes(n_bytes)}).")


@contextmanager
def _temporary(output: Path) -> Generator[Path]:
    """Yield a path beside the output; whatever is still there at the end is removed."""
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", suffix=".part", dir=output.parent) as folder:
        yield Path(folder) / output.name


class _Stream(RawIOBase):
    """Chunks as a file that can be read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        room = memoryview(buffer).cast("B")
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        n = min(len(room), len(self._rest))
        room[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        return n


def _unpack(chunks: Iterator[bytes], folder: Path) -> None:
    folder.mkdir()
    with (
        BufferedReader(_Stream(chunks), _N_CHUNK_BYTES) as stream,
        tarfile.open(fileobj=stream, mode="r|", bufsize=_N_CHUNK_BYTES) as tar,
    ):
        tar.extractall(folder, filter="data")
        while stream.read(_N_CHUNK_BYTES):  # to the last byte: only then it is known to be whole
            pass


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
