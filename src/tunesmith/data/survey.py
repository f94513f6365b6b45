"""A file read by the rules of a method and the context of a base: row by row what it counts and what is wrong with it.

A job's validation, the dry run and `tunesmith files check` read through here, so that they say the same. No torch.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from tunesmith.data.jsonl import Stream
from tunesmith.data.lengths import Context, needs
from tunesmith.data.pairs import PairForm
from tunesmith.data.prompts import PromptForm
from tunesmith.data.render import Measure, Renderer, RenderError
from tunesmith.data.rows import ChatForm, Form, Placed, Problems, scan_rows
from tunesmith.data.spans import Draft

FORMS: Final[dict[str, Form[Any]]] = {form.name: form for form in (ChatForm(), PairForm(), PromptForm())}

#: Rows with the texts of their examples.
_Batch = list[tuple[Placed, list[Draft]]]

#: Rows that are tokenized together: at most this many, and at most about this many characters.
_BATCH_ROWS: Final = 64
_BATCH_CHARS: Final = 200_000
#: Small beside the files whose reading is watched, so that what was read is not far ahead of the rows that came of it.
_CHUNK_BYTES: Final = 1 << 14


@dataclass(frozen=True, slots=True)
class Seen:
    """A row that was read, and of which something may be wrong still."""

    row: Placed
    drafts: Sequence[Draft]
    measures: Sequence[Measure]
    #: What is wrong with it, in the words of `problems`; None when it can be used.
    problem: str | None


class Survey:
    """Reads files of one method for one base."""

    def __init__(
        self, method: str, config: Mapping[str, Any], renderer: Renderer, context: Context, *, max_line_bytes: int
    ) -> None:
        self._form = FORMS[method]
        self._renderer = renderer
        #: The base's.
        self.context = context
        self._needs = needs(method, config, renderer, context)
        self._max_line_bytes = max_line_bytes

    def read(self, stream: Stream, problems: Problems, *, file_id: str = "") -> Iterator[Seen]:
        """Yield the rows that can be rendered, in order; what is wrong with them and with the others is in `problems`.

        `file_id` is named when the file is in another method's format.

        Raises:
            InvalidRows: the file as a whole is in another format.
        """
        rows = scan_rows(stream, form=self._form, max_line_bytes=self._max_line_bytes, problems=problems, file_id=file_id)
        for batch, measured in self._measured(_batches(self._drafted(rows, problems))):
            for row, drafts in batch:
                measures = [next(measured) for _ in drafts]
                problem = self._needs.problem(row, drafts, measures)
                if problem is not None:
                    problems.add(f"{row.place}: {problem}", row.line)
                yield Seen(row, drafts, measures, problem)

    def _drafted(self, rows: Iterator[Placed], problems: Problems) -> Iterator[tuple[Placed, list[Draft]]]:
        """Render each row; one that the chat template does not take is a problem."""
        for row in rows:
            try:
                yield row, self._needs.drafts(row)
            except RenderError as error:
                number = error.message_number
                where, field = (
                    (":", "") if number is None else (f", message {number}", f"{self._form.messages}[{number - 1}]")
                )
                problems.add(f"{row.place}{where} {error.reason}", row.line, field)

    def _measured(self, batches: Iterator[_Batch]) -> Iterator[tuple[_Batch, Iterator[Measure]]]:
        """Tokenize a batch while the next one is read and rendered: `tokenizers` works outside of Python's lock."""
        ready: deque[tuple[_Batch, Future[list[Measure]]]] = deque()
        with ThreadPoolExecutor(1) as pool:
            for batch in batches:
                drafts = [draft for _, drafts in batch for draft in drafts]
                future = pool.submit(self._renderer.measure, drafts, max_tokens=self.context.n_tokens)
                ready.append((batch, future))
                if len(ready) > 1:
                    first, future = ready.popleft()
                    yield first, iter(future.result())
            for batch, future in ready:
                yield batch, iter(future.result())


class Watched:
    """A stream that knows how far it was read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._n_read = 0
        self._size = stream.seek(0, 2) if stream.seekable() else None
        if self._size is not None:
            stream.seek(0)

    @property
    def share(self) -> float | None:
        """How much was read, 0 to 1, None where the size is not known."""
        return None if not self._size else self._n_read / self._size

    def read(self, n_bytes: int) -> bytes:
        """Return up to so many bytes, none at the end."""
        piece = self._stream.read(min(n_bytes, _CHUNK_BYTES))
        self._n_read += len(piece)
        return piece


def _batches(rows: Iterator[tuple[Placed, list[Draft]]]) -> Iterator[_Batch]:
    batch: _Batch = []
    n_chars = 0
    for row, drafts in rows:
        batch.append((row, drafts))
        n_chars += sum(len(draft.text) for draft in drafts)
        if len(batch) >= _BATCH_ROWS or n_chars >= _BATCH_CHARS:
            yield batch
            batch, n_chars = [], 0
    if batch:
        yield batch
