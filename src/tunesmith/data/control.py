"""Control tokens in what people write: kept as the plain text they are, so that no message can forge a turn or end one.

Only what is written as another's words (everything but assistant messages) is guarded. Content that holds no control token,
nearly all of it, is untouched and takes the tokenizer's ordinary way; the rest is marked before it is rendered, and the
marked pieces are tokenized with the special tokens switched off.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable
from functools import cached_property
from typing import Final, Protocol

from tokenizers import Tokenizer

_OPEN: Final = "\ue0f8"
_CLOSE: Final = "\ue0f9"


class Encoded(Protocol):
    """What is asked of an encoded text; `tokenizers.Encoding` has it all."""

    @property
    def ids(self) -> list[int]:
        """The token ids."""
        ...

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """The characters of each token."""
        ...

    def char_to_token(self, char_pos: int, /) -> int | None:
        """Return the token that holds a character."""
        ...

    def token_to_chars(self, token_index: int, /) -> tuple[int, int] | None:
        """Return the characters of a token."""
        ...

    def __len__(self) -> int: ...


class ControlTokens:
    """Marks a tokenizer's special tokens in text, and encodes marked text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
        longest_first = sorted((content for content in special if content), key=len, reverse=True)
        alternatives = "|".join(map(re.escape, longest_first))
        self._tokens = re.compile(alternatives or "(?!)")
        self._pieces = re.compile(f"{_OPEN}({alternatives or '(?!)'}){_CLOSE}|[{_OPEN}{_CLOSE}]")
        self._tokenizer = tokenizer

    @cached_property
    def _plain(self) -> Tokenizer:
        """A second tokenizer, made when the first control token turns up: it knows no special tokens."""
        plain = Tokenizer.from_str(self._tokenizer.to_str())
        plain.encode_special_tokens = True
        return plain

    def mark(self, text: str) -> str:
        """Return `text` with a mark around every control token, and with marks of its own removed."""
        if _OPEN in text or _CLOSE in text:
            text = text.replace(_OPEN, "").replace(_CLOSE, "")
        return self._tokens.sub(f"{_OPEN}\\g<0>{_CLOSE}", text)

    def is_marked(self, text: str) -> bool:
        """Say whether rendered text needs `encode`."""
        return _OPEN in text or _CLOSE in text

    def encode(self, text: str) -> Encoded:
        """Encode marked text piece by piece; offsets are those of the marked text, marks belong to no token."""
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for start, piece, plain in self._split(text):
            encoding = (self._plain if plain else self._tokenizer).encode(piece, add_special_tokens=False)
            ids += encoding.ids
            offsets += [(start + first, start + last) for first, last in encoding.offsets]
        return _Joined(ids, offsets)

    def _split(self, text: str) -> Iterable[tuple[int, str, bool]]:
        """Yield each piece between marks with its place, and whether it is plain text."""
        at = 0
        for match in self._pieces.finditer(text):
            if match.start() > at:
                yield at, text[at : match.start()], False
            if match.group(1):
                yield match.start(1), match.group(1), True
            at = match.end()
        if at < len(text):
            yield at, text[at:], False


class _Joined:
    """Several encodings as one."""

    def __init__(self, ids: list[int], offsets: list[tuple[int, int]]) -> None:
        self.ids = ids
        self.offsets = offsets
        self._starts = [start for start, _ in offsets]

    def __len__(self) -> int:
        return len(self.ids)

    def char_to_token(self, char_pos: int, /) -> int | None:
        """Return the first token that holds a character, None for a mark."""
        index = bisect_right(self._starts, char_pos) - 1
        if index < 0 or char_pos >= self.offsets[index][1]:
            return None
        return self._starts.index(self._starts[index])

    def token_to_chars(self, token_index: int, /) -> tuple[int, int] | None:
        """Return the characters of a token."""
        return self.offsets[token_index]
