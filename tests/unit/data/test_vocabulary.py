"""Tokens are told by their bytes, whatever the family of tokenizers writes for them."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from tunesmith.data.vocabulary import TokenLogprob, Vocabulary

TEXT = "Größe: 3 €, 你好 🙂"


def byte_level() -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.add_tokens([AddedToken("Größe", normalized=False)])
    return tokenizer


def fallback() -> Tokenizer:
    pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), "▁", "G", "r", "ö", "ß", "e", ":", "3", ","]
    tokenizer = Tokenizer(
        BPE(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[], byte_fallback=True)
    )  # fmt: skip
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer


@pytest.mark.parametrize("make", [byte_level, fallback])
def test_the_bytes_of_tokens_are_the_text(make: object) -> None:
    assert callable(make)
    tokenizer = make()
    vocabulary = Vocabulary(tokenizer)
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids
    assert b"".join(map(vocabulary.bytes_of, ids)).decode() == TEXT
    assert len(ids) > len(set(TEXT)), "some characters are several tokens"
    end = tokenizer.token_to_id("<|end|>")
    assert vocabulary.special == {end}
    assert vocabulary.bytes_of(end) == b"<|end|>"


def test_ids_that_are_no_tokens_are_not_in_it() -> None:
    vocabulary = Vocabulary(byte_level())
    assert [id in vocabulary for id in (0, 257, 258, -1, 2**40)] == [True, True, False, False, False]


def test_bytes_that_are_no_character_are_told_as_such() -> None:
    vocabulary = Vocabulary(byte_level())
    euro = vocabulary.scored(byte_level().encode("€").ids[0], -0.5, [(byte_level().encode("a").ids[0], -1.0)])
    assert (euro.text, euro.bytes, euro.top) == ("\\xe2", b"\xe2", (TokenLogprob(b"a", -1.0),))
