"""JSON lines from a stream in constant memory, and the check that an upload consists of them.

A line ends with a newline, CRLF or not; a byte order mark at the start is skipped. Lines of white space alone are skipped
too, but counted: line numbers are those of an editor. A line over the limit is told by number and never held.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple, Protocol

from pydantic_core import from_json

_BOM: Final = b"\xef\xbb\xbf"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff", b"{\x00", b"\x00{", b"[\x00", b"\x00[")
_CHUNK_BYTES: Final = 1024 * 1024


class Stream(Protocol):
    """What a file is read from."""

    def read(self, n_bytes: int, /) -> bytes:
        """Return up to so many bytes, none at the end."""
        ...


class NotJson(ValueError):
    """A line is not a JSON object; the message goes on from `Line 7 `."""


class NotJsonl(ValueError):
    """A file is not JSONL: `line` is 1-based, 0 where the whole file is meant."""

    def __init__(self, line: int, reason: str) -> None:
        place = f"Line {line} {reason}" if line else reason
        super().__init__(f"Expected file to have JSONL format, where every line is a valid JSON dictionary. {place}.")
        self.line = line
        self.reason = reason


class Line(NamedTuple):
    """One line without its end; `content` is None when it is longer than the limit."""

    number: int
    content: bytes | bytearray | None


class Lines:
    """Cuts chunks of bytes, of any size, into lines."""

    def __init__(self, *, max_line_bytes: int) -> None:
        self._max = max_line_bytes
        self._number = 0
        self._rest = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """Yield the lines that `chunk` completes; exhaust it before feeding the next."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            yield self._complete(chunk[start:end])
            start = end + 1
        self._hold(chunk[start:])

    def finish(self) -> Iterator[Line]:
        """Yield what stands behind the last newline, if anything does."""
        if self._rest or self._skipping:
            yield self._complete(b"")

    def _hold(self, piece: bytes) -> None:
        if self._skipping or not piece:
            return
        # What is over the limit may yet turn out to be a byte order mark and a carriage return.
        if len(self._rest) + len(piece) > self._max + len(_BOM) + 1:
            self._skipping = True
            self._rest = bytearray()
        else:
            self._rest += piece

    def _complete(self, piece: bytes) -> Line:
        self._number += 1
        content: bytes | bytearray = piece
        if self._rest or self._skipping:
            self._hold(piece)
            content, self._rest = self._rest, bytearray()
        if self._skipping:
            self._skipping = False
            return Line(self._number, None)
        if self._number == 1:
            content = content.removeprefix(_BOM)
        content = content.removesuffix(b"\r")
        return Line(self._number, content if len(content) <= self._max else None)


def read_lines(stream: Stream, *, max_line_bytes: int) -> Iterator[Line]:
    """Yield the lines of a stream that are not blank."""
    lines = Lines(max_line_bytes=max_line_bytes)
    while chunk := stream.read(_CHUNK_BYTES):
        for line in lines.feed(chunk):
            if not _blank(line):
                yield line
    for line in lines.finish():
        if not _blank(line):
            yield line


def parse_object(line: Line, *, max_line_bytes: int) -> dict[str, Any]:
    """Return the JSON object of a line.

    Raises:
        NotJson: it is too long, not UTF-8, not JSON or not an object.
    """
    content = line.content
    if content is None:
        raise NotJson(
            f"is longer than {max_line_bytes:,} bytes, the limit of this server (its setting max_line_bytes): each example "
            "is a line of its own"
        )
    try:
        value: object = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise NotJson(_why(content, line.number, str(error))) from error
    if not isinstance(value, dict):
        raise NotJson(f"is JSON but not a dictionary: it begins with {_begin(content)}")
    return value


class JsonlCheck:
    """Checks an upload while it streams by: every line that is not blank is a JSON object, and there is one at least."""

    def __init__(self, *, max_line_bytes: int) -> None:
        self._max = max_line_bytes
        self._lines = Lines(max_line_bytes=max_line_bytes)
        #: Objects seen so far.
        self.n_rows = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file.

        Raises:
            NotJsonl: a line that they complete is not a JSON object.
        """
        for line in self._lines.feed(chunk):
            self._check(line)

    def finish(self) -> None:
        """Take the end of the file.

        Raises:
            NotJsonl: the last line is not a JSON object, or the file holds none.
        """
        for line in self._lines.finish():
            self._check(line)
        if not self.n_rows:
            raise NotJsonl(0, "The file holds no line that is not blank")

    def _check(self, line: Line) -> None:
        if _blank(line):
            return
        try:
            parse_object(line, max_line_bytes=self._max)
        except NotJson as error:
            raise NotJsonl(line.number, str(error)) from error
        self.n_rows += 1


def _blank(line: Line) -> bool:
    content = line.content
    return content is not None and (not content or content.isspace())


def is_utf16(start: bytes | bytearray) -> bool:
    """Return whether a file that begins so is JSON in UTF-16, with a byte order mark or without."""
    return bytes(start[:2]) in _UTF16


def _why(content: bytes | bytearray, number: int, said: str) -> str:
    """Put the parser's complaint in a user's terms."""
    utf16 = "; the file looks like UTF-16, save it as UTF-8" if number == 1 and is_utf16(content) else ""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return f"is not valid UTF-8: byte 0x{content[error.start]:02x} at position {error.start + 1}{utf16}"
    hint = "; an object stands on one line" if "EOF" in said and content.lstrip()[:1] in (b"{", b"[") else ""
    why = said.replace(" at line 1 column ", " at column ")
    return f"is not valid JSON: {why}; it begins with {_begin(content)}{utf16 or hint}"


def _begin(content: bytes | bytearray) -> str:
    text = content[:40].decode(errors="replace").strip()
    return repr(text[:20])
