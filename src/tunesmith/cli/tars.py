"""A tar that comes in chunks, unpacked into a new folder that is there whole or not at all."""

import tarfile
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

N_CHUNK_BYTES: Final = 1024 * 1024


@contextmanager
def temporary(output: Path) -> Generator[Path]:
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


def unpack(chunks: Iterator[bytes], folder: Path) -> None:
    """Unpack the tar into a folder that this makes."""
    folder.mkdir(mode=0o700)
    with (
        BufferedReader(_Stream(chunks), N_CHUNK_BYTES) as stream,
        tarfile.open(fileobj=stream, mode="r|", bufsize=N_CHUNK_BYTES) as tar,
    ):
        tar.extractall(folder, filter="data")
        while stream.read(N_CHUNK_BYTES):  # to the last byte: only then it is known to be whole
            pass
