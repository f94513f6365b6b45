"""Local training files as the commands open them: what is no JSONL file ends the command with one line that says why."""

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

from tunesmith.cli.client import fail
from tunesmith.data.arrays import is_array
from tunesmith.data.jsonl import is_utf16

#: Longest line that is read; the server's own limit unless it was set.
MAX_LINE_BYTES: Final = 64 * 1024 * 1024
#: What is smaller is read before anybody asks how far it is.
_LARGE_BYTES: Final = 8 * 1024 * 1024


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, stream: BinaryIO, told: Callable[[int], None]) -> None:
        self._stream, self._told = stream, told

    def read(self, n_bytes: int, /) -> bytes:
        data = self._stream.read(n_bytes)
        self._told(self._stream.tell())
        return data

    def seek(self, offset: int, /) -> int:
        return self._stream.seek(offset)


@contextmanager
def opened(path: Path, doing: str = "", *, arrays: bool = False) -> Generator["BinaryIO | _Counted"]:
    """Open a file of rows; with `arrays` it may be one JSON array. How far a large one is read is told as `doing`."""
    try:
        stream = path.open("rb")
    except IsADirectoryError:
        fail(f"{path} is a folder, not a JSONL file.", 2)
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror or error}.", 2)
    with stream:
        start = stream.read(4096)
        stream.seek(0)
        if not start:
            fail(f"{path} is empty.")
        if is_utf16(start):
            fail(f"{path} is UTF-16, and JSONL is UTF-8: `iconv -f UTF-16 -t UTF-8 {path}` prints it so.")
        if b"\0" in start[:512]:
            fail(f"{path} is no text: unpack it, or write its rows as JSONL, a JSON object on each line.")
        if not arrays and is_array(start):
            fail(
                f"{path} is one JSON array, and JSONL has an object on each line: `tunesmith files convert {path}` writes "
                "its rows so."
            )
        if not doing or path.stat().st_size < _LARGE_BYTES:
            yield stream
            return
        from tunesmith.cli.progress import counting

        with counting(f"{doing} {path.name}", path.stat().st_size, of_bytes=True) as told:
            yield _Counted(stream, told)


@contextmanager
def made(path: Path) -> Generator[IO[bytes]]:
    """Make a file, whole or not at all; one that is there is not overwritten."""
    part = path.with_name(f"{path.name}.part")
    if path.exists():
        fail(f"{path} is there already, and nothing is overwritten: name another, or remove it.", 2)
    try:
        stream = part.open("xb")
    except FileExistsError:
        fail(f"{part} is there, of another command or one that broke off: remove it.", 2)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror or error}.")
    try:
        with stream:
            yield stream
        if path.exists():
            fail(f"{path} was made meanwhile, and nothing is overwritten.", 2)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def json_object(source: str) -> dict[str, Any]:
    """Return the JSON object in a file, or on stdin where it is `-`."""
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8-sig")
        said = json.loads(text)
    except OSError as error:
        fail(f"{source} cannot be read: {error.strerror or error}.", 2)
    except UnicodeDecodeError as error:
        fail(f"{source} is not UTF-8: {error.reason} at byte {error.start + 1}.", 2)
    except ValueError as error:
        fail(f"{source} is not JSON: {error}.", 2)
    if not isinstance(said, dict):
        fail(f"{source} is JSON but no object.", 2)
    return said
