# pyright: basic
"""A JSONL file as rows that can be asked for in any order: offsets in memory, lines read and rendered when needed."""

import io
from array import array
from pathlib import Path
from typing import Final

from tunesmith.core.failpoint import failpoint
from tunesmith.data.render import Renderer
from tunesmith.data.rows import read_rows
from tunesmith.engine.document import Document
from tunesmith.methods.base import Method

#: Files up to this size are rendered once and kept; larger ones are rendered anew in each epoch, in constant memory.
KEEP_BYTES: Final = 32 * 1024 * 1024


class RowFile:
    """The validated rows of a local JSONL file as documents of a method."""

    def __init__(
        self, path: Path, *, method: Method, renderer: Renderer, max_tokens: int, max_line_bytes: int,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:  # fmt: skip
        self._path, self._method, self._renderer = path, method, renderer
        self._max_tokens, self._max_line_bytes = max_tokens, max_line_bytes
        self._offsets = _offsets(path)
        self._kept: dict[int, list[Document]] | None = {} if path.stat().st_size <= keep_bytes else None

    def __len__(self) -> int:
        return len(self._offsets)

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
        with self._path.open("rb") as stream:
            stream.seek(self._offsets[row])
            line = stream.readline()
        documents = [
            Document.of(*group)
            for parsed in read_rows(io.BytesIO(line), form=self._method.form, max_line_bytes=self._max_line_bytes)
            for group in self._method.groups(parsed, self._renderer, max_tokens=self._max_tokens)
        ]
        if self._kept is not None:
            self._kept[row] = documents
        return documents


def _offsets(path: Path) -> array:
    """Return where each line that is not blank begins."""
    offsets, start = array("q"), 0
    with path.open("rb") as stream:
        for line in stream:
            if line.strip():
                offsets.append(start)
            start += len(line)
    return offsets
