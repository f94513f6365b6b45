"""Rows of a file that is one JSON array, as other products write them, one after another in little memory."""

import codecs
import json
from collections.abc import Iterator
from typing import Any, Final

from tunesmith.data.jsonl import NotJson, Stream

_CHUNK_BYTES: Final = 1 << 20
_SPACE: Final = " \t\r\n"


def is_array(start: bytes) -> bool:
    """Say whether a file that begins so is an array."""
    return start.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["


def elements(stream: Stream, *, max_bytes: int) -> Iterator[tuple[int, Any]]:
    """Yield the elements with their numbers, from 1.

    Raises:
        NotJson: it is no array, an element is longer than `max_bytes`, or the file ends within it.
    """
    text = _Text(stream)
    if text.next() != "[":
        raise NotJson("The file is no JSON array")
    text.at += 1
    number = 0
    while (char := text.next()) != "]":
        if number:
            if char != ",":
                raise NotJson(f"Behind element {number} there is neither a comma nor the end of the array")
            text.at += 1
            text.next()
        number += 1
        yield number, text.value(number, max_bytes)


class _Text:
    """What was read of a stream and not yet taken."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._feed = codecs.getincrementaldecoder("utf-8-sig")()
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._ended = False
        self.at = 0

    def next(self) -> str:
        """Return the next character that is no space, without taking it; empty at the end."""
        while True:
            while self.at < len(self._text) and self._text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self._text):
                return self._text[self.at]
            if not self._more():
                return ""

    def value(self, number: int, max_bytes: int) -> object:
        """Take a value."""
        while True:
            try:
                value, self.at = self._decoder.raw_decode(self._text, self.at)
            except RecursionError as error:
                raise NotJson(f"Element {number} is nested too deep") from error
            except ValueError as error:
                if len(self._text) - self.at > max_bytes:
                    raise NotJson(f"Element {number} is longer than {max_bytes:,} bytes") from error
                if not self._more():
                    raise NotJson(f"Element {number} is not valid JSON: {error}") from error
            else:
                return value

    def _more(self) -> bool:
        if self._ended:
            return False
        # twice as much for an element that does not fit, so that it is not parsed anew for every piece
        piece = self._stream.read(max(_CHUNK_BYTES, len(self._text) - self.at))
        self._ended = not piece
        try:
            self._text, self.at = self._text[self.at :] + self._feed.decode(piece, final=self._ended), 0
        except UnicodeDecodeError as error:
            raise NotJson(f"The file is not valid UTF-8: {error.reason}") from error
        return True
