"""What `tunesmith files upload`, `download` and `show` do: a file goes by pieces and is never held whole."""

import base64
import mimetypes
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

import typer

from tunesmith.cli.client import USAGE, Client, Refused, Unreachable, fail, segment
from tunesmith.cli.local import made
from tunesmith.cli.output import clean, when
from tunesmith.cli.progress import counting
from tunesmith.core.machine import readable_bytes

FILES: Final = "/v1/files"
UPLOADS: Final = "/v1/uploads"
RESULTS: Final = "fine-tune-results"
MIB: Final = 1024 * 1024
#: The largest part that OpenAI's uploads take.
PART_BYTES: Final = 64 * MIB
#: A part that is lost on its way is sent again.
N_TRIES: Final = 4
N_PIECE_BYTES: Final = 256 * 1024
#: Of a file's start, enough for its first rows.
N_LOOK_BYTES: Final = 1024 * 1024
#: Of a table's start, enough for its first names.
N_HEAD_BYTES: Final = 64


class _Read:
    """A stretch of a file that tells how much of it was read: what a request's body is made of."""

    def __init__(self, file: IO[bytes], n_bytes: int, told: Callable[[int], None]) -> None:
        self._file, self._start, self._n_bytes, self._told = file, file.tell(), n_bytes, told

    def read(self, n: int = -1, /) -> bytes:
        left = self._start + self._n_bytes - self._file.tell()
        data = self._file.read(left if n < 0 else min(n, left))
        self._told(self._file.tell())
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        origin = {0: self._start, 1: self._file.tell(), 2: self._start + self._n_bytes}[whence]
        return self._file.seek(origin + offset) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start


def at(file_id: str) -> str:
    """Return a file's path."""
    return f"{FILES}/{segment(file_id)}"


def upload(client: Client, path: Path, purpose: str, *, part_bytes: int = PART_BYTES) -> dict[str, Any]:
    """Send a file, in parts where it is larger than one, and return its object; what fails ends the command."""
    try:
        file = path.open("rb")
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror or error}.", USAGE)
    with file:
        n_bytes = path.stat().st_size
        if n_bytes == 0:
            fail(f"{path} is empty.")
        with counting(f"Uploading {path.name}", n_bytes, of_bytes=True) as told:
            try:
                if n_bytes > part_bytes:
                    return _in_parts(client, file, (path.name, n_bytes, purpose), part_bytes, told)
                whole = {"file": (path.name, _Read(file, n_bytes, told))}
                return client.request("POST", FILES, data={"purpose": purpose}, files=whole)
            except Refused as error:
                fail(str(error), error=error.error)
            except Unreachable as error:
                fail(str(error), error.code)


def _in_parts(
    client: Client, file: IO[bytes], named: tuple[str, int, str], part_bytes: int, told: Callable[[int], None]
) -> dict[str, Any]:
    name, n_bytes, purpose = named
    # what OpenAI's uploads call training files; other types are as their names say
    kind = "text/jsonl" if name.endswith(".jsonl") else mimetypes.guess_type(name)[0] or "application/octet-stream"
    body = {"filename": name, "bytes": n_bytes, "purpose": purpose, "mime_type": kind}
    begun = client.request("POST", UPLOADS, json=body)
    path = f"{UPLOADS}/{begun['id']}"
    whole = False
    try:
        parts = [
            _part(client, path, file, start, min(part_bytes, n_bytes - start), told)
            for start in range(0, n_bytes, part_bytes)
        ]
        made = client.request("POST", f"{path}/complete", json={"part_ids": parts})["file"]
        whole = True
        return made
    finally:  # of an interrupt too: half an upload is of no use to anybody
        if not whole:
            with suppress(Refused, Unreachable):
                client.request("POST", f"{path}/cancel")


def _part(client: Client, path: str, file: IO[bytes], start: int, n_bytes: int, told: Callable[[int], None]) -> str:
    for left in reversed(range(N_TRIES)):
        file.seek(start)
        try:
            sent = client.request("POST", f"{path}/parts", files={"data": ("part", _Read(file, n_bytes, told))})
            return str(sent["id"])
        except Unreachable:
            if not left:
                raise
    raise AssertionError  # the last try returns or raises


def download(client: Client, file_id: str, output: Path | None) -> tuple[dict[str, Any], Path]:
    """Write a file's bytes under its own name, or another, whole or not at all; return its object and where it is."""
    about = client.call("GET", at(file_id))
    target = output or Path(Path(str(about["filename"]).replace("\\", "/")).name or file_id)
    if target.is_dir():
        target /= Path(str(about["filename"])).name or file_id
    with (
        counting(f"Downloading {target.name}", about["bytes"], of_bytes=True) as told,
        made(target) as out,
        client.download(f"{at(file_id)}/content") as response,
    ):
        n_done = 0
        for piece in decoded(response.iter_bytes(N_PIECE_BYTES), about["purpose"]):
            out.write(piece)
            n_done += len(piece)
            told(n_done)
    return about, target


def print_content(client: Client, file_id: str) -> None:
    """Write a file's bytes to stdout."""
    about = client.call("GET", at(file_id))
    with client.download(f"{at(file_id)}/content") as response:
        for piece in decoded(response.iter_bytes(N_PIECE_BYTES), about["purpose"]):
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def decoded(pieces: Iterator[bytes], purpose: str) -> Iterator[bytes]:
    """Yield what was stored: results may come as base64, which no table of figures begins like, for it has commas."""
    rest = b""
    while purpose == RESULTS and len(rest) < N_HEAD_BYTES and (piece := next(pieces, b"")):
        rest += piece
    if purpose != RESULTS or b"," in rest:
        yield rest
        yield from pieces
        return
    for piece in pieces:
        whole = len(rest) // 4 * 4
        yield base64.b64decode(rest[:whole])
        rest = rest[whole:] + piece
    yield base64.b64decode(rest)


def start_of(client: Client, about: dict[str, Any]) -> bytes:
    """Return the first lines of a file, whole ones."""
    start = b""
    with client.download(f"{at(about['id'])}/content") as response:
        for piece in decoded(response.iter_bytes(N_PIECE_BYTES), about["purpose"]):
            start += piece
            if len(start) >= N_LOOK_BYTES:
                cut = start.rfind(b"\n") + 1
                return start[:cut] if cut else start
    return start


def show(about: dict[str, Any], start: bytes, n_rows: int) -> None:
    """Show what is known of a file, and its first rows as conversations."""
    ends = f", goes {when(about['expires_at'])}" if about.get("expires_at") else ""
    facts = f"{about['purpose']}, {readable_bytes(about['bytes'])}, {when(about['created_at'])}{ends}"
    typer.echo(f"{about['id']}  {clean(about['filename'])}  {facts}")
    # a table of figures that wraps is none
    room = shutil.get_terminal_size().columns if about["purpose"] == RESULTS and sys.stdout.isatty() else None
    for line in lines_of(about, start, n_rows):
        typer.echo(line[:room])


def lines_of(about: dict[str, Any], start: bytes, n_rows: int) -> Iterator[str]:
    """Yield the first rows as lines: conversations, and of results their own; of what else there is nothing."""
    if about["purpose"] == RESULTS:
        yield from map(clean, start.decode("utf-8", "replace").splitlines()[: n_rows + 1])
    if not about["filename"].endswith(".jsonl"):
        return
    from tunesmith.dashboard.rows import first_rows, said

    for row in first_rows(start, n_rows):
        yield ""
        yield typer.style(f"line {row.line}", bold=True) + (f": {clean(row.problem)}" if row.problem else "")
        for name, messages in row.parts.items():
            if len(row.parts) > 1:
                yield f"  {clean(name)}"
            for message in messages:
                first, *more = said(message).split("\n")
                yield f"  {typer.style(clean(str(message['role'])), bold=True)}: {clean(first)}"
                yield from (f"    {clean(text)}" for text in more)
        for name, value in row.other.items():
            yield f"  {clean(name)} = {clean(str(value))}"
