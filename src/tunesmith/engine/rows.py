# pyright: basic
"""A JSONL file as rows that can be asked for in any order: offsets in memory, lines read and rendered when needed."""

import io
from array import array
from pathlib import Path
from typing import Final, Generic, TypeVar

from tunesmith.core.failpoint import failpoint
from tunesmith.data.render import Renderer
from tunesmith.data.rows import Form, read_rows
from tunesmith.engine.document import Document
from tunesmith.methods.base import Method

#: Files up to this size are rendered once and kept; larger ones are rendered anew in each epoch, in constant memory.
KEEP_BYTES: Final = 32 * 1024 * 1024

RowT = TypeVar("RowT")


class FormFile(Generic[RowT]):
    """The validated rows of a local JSONL file of a form."""

    def __init__(self, path: Path, *, form: Form[RowT], max_line_bytes: int) -> None:
        self._lines = _Lines(path)
        self._form, self._max_line_bytes = form, max_line_bytes

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, row: int, /) -> RowT:
        """Return a row.

        Raises:
            IndexError: there is no such row.
            InvalidRows: the line is no longer a valid row.
        """
        (found,) = read_rows(self._lines.stream(row), form=self._form, max_line_bytes=self._max_line_bytes)
        return found


class RowFile:
    """The validated rows of a local JSONL file as documents of a method."""

    def __init__(
        self, path: Path, *, method: Method, renderer: Renderer, max_tokens: int, max_line_bytes: int,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:  # fmt: skip
        self._lines, self._method, self._renderer = _Lines(path), method, renderer
        self._max_tokens, self._max_line_bytes = max_tokens, max_line_bytes
        self._kept: dict[int, list[Document]] | None = {} if path.stat().st_size <= keep_bytes else None

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, row: int, /) -> list[Document]:
        """Return a row's documents.

        Raises:
            IndexError: there is no such row.
            InvalidRows: the line is no longer a valid row.
            RenderError: the chat template cannot render it.
        """
        if self._kept is not None and row in self._kept:
            return self._kept[row]
        failpoint("train.tokenise")
        documents = [
            Document.of(*group)
            for parsed in read_rows(self._lines.stream(row), form=self._method.form, max_line_bytes=self._max_line_bytes)
            for group in self._method.groups(parsed, self._renderer, max_tokens=self._max_tokens)
        ]
        if self._kept is not None:
            self._kept[row] = documents
        return documents


class _Lines:
    """The lines of a file that are not blank, by number."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets = _offsets(path)

    def __len__(self) -> int:
        return len(self._offsets)

    def stream(self, number: int) -> io.BytesIO:
        """Return a line, counted from 0."""
        with self._path.open("rb") as stream:
            stream.seek(self._offsets[number])
            return io.BytesIO(stream.readline())


def _offsets(path: Path) -> array:
    """Return where each line begins that is not blank."""
    offsets, start = array("q"), 0
    with path.open("rb") as stream:
        for line in stream:
            if line.strip():
                offsets.append(start)
            start += len(line)
    return offsets
