"""Tokens one by one: their bytes, as answers tell them, and which ids a tokenizer has."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPACE: Final = "▁"


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of a text, its log-probability (NaN where nothing precedes it), and the likeliest ones in its place."""

    bytes: bytes
    logprob: float
    top: "tuple[TokenLogprob, ...]" = ()
    #: The character of the answer's text that it begins with, or has a part in.
    start: int = 0

    @property
    def text(self) -> str:
        """The token as text, bytes that are no whole character as `\\xe2\\x80`."""
        return self.bytes.decode(errors="backslashreplace")


class Vocabulary:
    """The tokens of a tokenizer; what it learns of the tokenizer it learns when it is first asked."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer

    def __contains__(self, id: int) -> bool:
        return 0 <= id < 2**32 and self._tokenizer.id_to_token(id) is not None

    @cached_property
    def special(self) -> frozenset[int]:
        """Tokens that stand for no text."""
        return frozenset(id for id, token in self._added.items() if token.special)

    def bytes_of(self, id: int) -> bytes:
        """Return what a token adds to a text, which need not be whole characters; empty for an id that is no token."""
        token = self._tokenizer.id_to_token(id) or ""
        if id in self._added:
            return token.encode()
        if "ByteLevel" in self._decoders:
            return b"".join(bytes((_BYTES[letter],)) if letter in _BYTES else letter.encode() for letter in token)
        if "ByteFallback" in self._decoders and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes.fromhex(token[3:5])
        return token.replace(_SPACE, " ").encode() if _SPACE in self._decoders else token.encode()

    def scored(self, id: int, logprob: float, top: Sequence[tuple[int, float]] = ()) -> TokenLogprob:
        """Return a sampled token as an answer tells it."""
        return TokenLogprob(self.bytes_of(id), logprob, tuple(self.scored(*each) for each in top))

    @cached_property
    def _added(self) -> dict[int, Any]:
        return self._tokenizer.get_added_tokens_decoder()

    @cached_property
    def _decoders(self) -> frozenset[str]:
        """The kinds of steps that make text of tokens, with `▁` where one of them writes a space for it."""
        decoder: Any = self._tokenizer.decoder
        if decoder is None:
            return frozenset()
        state = json.loads(decoder.__getstate__())
        steps = state["decoders"] if state["type"] == "Sequence" else [state]
        spaces = any(_SPACE in (step.get("replacement"), step.get("pattern", {}).get("String")) for step in steps)
        return frozenset({step["type"] for step in steps} | ({_SPACE} if spaces else set[str]()))


def _letters() -> dict[str, int]:
    """Return the letters of byte-level vocabularies: printable bytes stand for themselves, the others from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(rest)}


_BYTES: Final = _letters()
