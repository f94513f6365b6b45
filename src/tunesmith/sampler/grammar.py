# pyright: basic
"""Grammars at work: which tokens a row may take next, for the tokenizer of the sampler's base.

Shapes: S rows, V vocabulary.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from torch import Tensor

_BITS: Final = torch.arange(8, dtype=torch.uint8)


class GrammarBroken(ValueError):
    """A grammar cannot be followed: it is too large, or nothing that the base can write goes on from here."""


class Grammars:
    """Makes matchers; the tokenizer is read when the first one is wanted."""

    def __init__(self, tokenizer_json: Path, n_vocab: int) -> None:
        self._tokenizer_json = tokenizer_json
        self._n_vocab = n_vocab
        self._lock = threading.Lock()
        self._tokenizers: dict[frozenset[int], LLTokenizer] = {}

    def matcher(self, grammar: str, stop_ids: frozenset[int]) -> LLMatcher:
        """Return the matcher of a grammar at its begin; any of `stop_ids` ends an answer that is complete.

        Raises:
            GrammarBroken: the grammar cannot be followed.
        """
        with self._lock:
            tokenizer = self._tokenizers.get(stop_ids)
            if tokenizer is None:
                text = self._tokenizer_json.read_text(encoding="utf-8")
                tokenizer = LLTokenizer(text, n_vocab=self._n_vocab, eos_token=sorted(stop_ids) or None)
                self._tokenizers[stop_ids] = tokenizer
        matcher = LLMatcher(tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise GrammarBroken(matcher.get_error())
        return matcher


def allowed(matchers: Sequence[LLMatcher | None], n_vocab: int, device: torch.device) -> Tensor | None:
    """Return what each row may take, True where it may (S, V); None where no row is bound."""
    if all(matcher is None for matcher in matchers):
        return None
    bits_SW = allocate_token_bitmask(len(matchers), n_vocab)
    for row, matcher in enumerate(matchers):
        if matcher is None:
            bits_SW[row] = -1
        else:
            fill_next_token_bitmask(matcher, bits_SW, row)
    bytes_SN = torch.from_numpy(bits_SW.view("uint8"))
    mask_SV = (bytes_SN[:, :, None] >> _BITS & 1).flatten(1)[:, :n_vocab].bool()
    return mask_SV.to(device)


def take(matcher: LLMatcher, token: int, *, is_stop: bool = False) -> bool:
    """Move a matcher one token on; True when its answer is complete and nothing may follow.

    Raises:
        GrammarBroken: the token does not fit, or is a stop before the answer is complete. A matcher that cannot go on,
            because the grammar became too large or allows nothing, allows no other.
    """
    fits = matcher.is_accepting() if is_stop else matcher.consume_token(token)
    if not fits or matcher.is_error():
        reason = matcher.get_error().partition("\n")[0]
        # what stopped it may be a bare word of the library's
        raise GrammarBroken(reason if " " in reason else "no answer of this form can be written to its end")
    return is_stop or matcher.is_stopped()
