"""One uploaded file out of a multipart body, fields in any order, not held in memory: the file goes to disk as it comes."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

from tunesmith.core.errors import InvalidRequest, TooLarge

N_FIELD_BYTES: Final = 8 * 1024
N_FIELDS: Final = 32
CHUNK_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class Form:
    """A parsed form: its small fields, and the file that was written meanwhile."""

    fields: dict[str, str] = field(default_factory=dict[str, str])
    #: None until the part that is the file has come.
    filename: str | None = None
    n_bytes: int = 0


class FormReader:
    """Takes a body piece by piece; the one part that is the file goes to `sink`, every other part is a field."""

    def __init__(self, boundary: bytes, sink: BinaryIO, *, max_file_bytes: int, part: str = "file") -> None:
        self.form = Form()
        self._part = part
        self._sink = sink
        self._max_file_bytes = max_file_bytes
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._disposition = b""
        self._name = ""
        self._value = bytearray()
        self._ended = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_content,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }
        with _readable():
            self._parser = MultipartParser(boundary, callbacks)

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body.

        Raises:
            InvalidRequest: it is not multipart, or a field is unacceptable.
            TooLarge: the file is over the limit.
        """
        with _readable():
            self._parser.write(data)

    def finish(self) -> Form:
        """Return the form once the body has ended.

        Raises:
            InvalidRequest: the body ended in the middle of a part, or held no file.
        """
        if not self._ended:
            raise InvalidRequest("The multipart body ended before its closing boundary.")
        if self.form.filename is None:
            raise InvalidRequest(
                f"Missing required parameter: '{self._part}'.", param=self._part, code="missing_required_parameter"
            )
        self._sink.seek(0)
        return self.form

    def _part_begin(self) -> None:
        self._disposition = b""
        self._value = bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_content(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        if bytes(self._header_name).lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise InvalidRequest("Every part of a multipart body needs a Content-Disposition with a name.")
        self._name = options[b"name"].decode("utf-8", "replace")
        taken = self.form.filename is not None if self._name == self._part else self._name in self.form.fields
        if taken:
            raise InvalidRequest(f"'{self._name}' is given more than once.", param=self._name)
        if len(self.form.fields) >= N_FIELDS:
            raise InvalidRequest(f"A form holds at most {N_FIELDS} fields.")
        if self._name == self._part:
            self.form.filename = _filename(options.get(b"filename", b""))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name != self._part:
            self._value += data[start:end]
            if len(self._value) > N_FIELD_BYTES:
                raise InvalidRequest(f"'{self._name}' is longer than {N_FIELD_BYTES} bytes.", param=self._name)
            return
        self.form.n_bytes += end - start
        if self.form.n_bytes > self._max_file_bytes:
            what = "file" if self._part == "file" else "part"
            raise TooLarge(f"The {what} is larger than the limit of {self._max_file_bytes} bytes.", param=self._part)
        self._sink.write(memoryview(data)[start:end])

    def _part_end(self) -> None:
        if self._name != self._part:
            self.form.fields[self._name] = self._value.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True


@contextmanager
def _readable() -> Generator[None]:
    try:
        yield
    except FormParserError as error:
        raise InvalidRequest(f"The multipart body cannot be read: {error}.") from error


def _filename(sent: bytes) -> str:
    """Return the name of a file; quotes and line ends are escaped in a form, and nothing else is."""
    name = sent.decode("utf-8", "replace").replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
    return name.replace("\x00", "") or "file"


async def read_form(request: Request, sink: BinaryIO, *, max_file_bytes: int, part: str = "file") -> Form:
    """Read a request's multipart body; its file, the part of that name, lies in `sink`, ready to be read from the start.

    Raises:
        InvalidRequest: the body is not a form with one file.
        TooLarge: the file is over the limit.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        beside = "the fields 'purpose' and 'file'" if part == "file" else f"the field '{part}'"
        raise InvalidRequest(f"A file is uploaded as multipart/form-data with {beside}.")
    reader = FormReader(boundary, sink, max_file_bytes=max_file_bytes, part=part)
    gathered = bytearray()
    async for chunk in request.stream():
        gathered += chunk
        if len(gathered) >= CHUNK_BYTES:
            await run_in_threadpool(reader.feed, bytes(gathered))
            gathered.clear()
    await run_in_threadpool(reader.feed, bytes(gathered))
    return await run_in_threadpool(reader.finish)


def chunks(source: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of a file in pieces of at most one megabyte."""
    while piece := source.read(CHUNK_BYTES):
        yield piece


def form_fields(fields: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return fields with one level of brackets as nested objects: `expires_after[anchor]` lies under `expires_after`.

    Raises:
        InvalidRequest: a name is given more than once, or both with brackets and without.
    """
    nested: dict[str, Any] = {}
    for name, value in fields:
        outer, bracket, inner = name.partition("[")
        within = bracket and inner.endswith("]")
        place = nested.setdefault(outer, {}) if within else nested
        key = inner[:-1] if within else name
        if not isinstance(place, dict) or key in place:
            raise InvalidRequest(f"'{name}' is given more than once.", param=name)
        place[key] = value
    return nested
