# pyright: basic
"""A tokenizer as GGUF keeps it: byte-level BPE where llama.cpp has the same way to split text, and BPE over characters.

A way to split text that llama.cpp has, too, is one more entry in `_SPLITS`. Others are refused: the file would tokenize
otherwise than the model was trained with.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

from tunesmith.data.folder import TOKENIZER, TOKENIZER_CONFIG
from tunesmith.lm.merge import ExportRefused

_SPACE: Final = "\u2581"
_WORDS_OF_3: Final = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}NUMBERS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDINGS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
#: Expressions that text is split by before bytes become tokens, and llama.cpp's names of them.
_SPLITS: Final = {
    _ENDINGS + _WORDS_OF_3.replace("NUMBERS", "{1,3}"): "llama-bpe",
    _ENDINGS + _WORDS_OF_3.replace("NUMBERS", ""): "qwen2",
}
#: The value of a piece that no merge makes.
_LAST: Final = -1e6
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)


def without_generation(template: str) -> str:
    """Return a chat template that says the same without the tag for what is trained, which llama.cpp does not know."""
    begun = re.sub(r"\{%([-+]?)\s*generation\s*([-+]?)%\}", r"{%\1 if true \2%}", template)
    return re.sub(r"\{%([-+]?)\s*endgeneration\s*([-+]?)%\}", r"{%\1 endif \2%}", begun)


def add_vocabulary(writer: Any, folder: Path, *, n_tokens: int) -> None:
    """Write the tokens, how they are merged, and the special ones.

    Raises:
        ExportRefused: llama.cpp would tokenize otherwise.
    """
    tokenizer: dict[str, Any] = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))
    model = tokenizer["model"]
    if model.get("type") != "BPE":
        raise ExportRefused(f"its tokenizer is of the kind {model.get('type')}; llama.cpp's file is written for BPE")
    merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    tokens, types = _tokens(tokenizer, n_tokens)
    if model.get("byte_fallback"):
        _add_pieces(writer, folder, tokenizer, tokens, types, merges)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_split(tokenizer))
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_merges([f"{left} {right}" for left, right in merges])
    _add_special(writer, folder, {token: number for number, token in enumerate(tokens)})


def _tokens(tokenizer: dict[str, Any], n_tokens: int) -> tuple[list[str], list[int]]:
    by_id: dict[int, tuple[str, int]] = {}
    unknown = tokenizer["model"].get("unk_token")
    bytes_too = tokenizer["model"].get("byte_fallback")
    for token, number in tokenizer["model"]["vocab"].items():
        is_byte = bytes_too and re.fullmatch(r"<0x[0-9A-F]{2}>", token)
        by_id[number] = (token, _BYTE if is_byte else _NORMAL)
    for added in tokenizer.get("added_tokens", []):
        kind = _CONTROL if added["special"] else _USER
        by_id[added["id"]] = (added["content"], _UNKNOWN if added["content"] == unknown else kind)
    if by_id and max(by_id) >= n_tokens:
        raise ExportRefused(f"its tokenizer has {max(by_id) + 1} tokens and its embedding {n_tokens} rows")
    listed = [by_id.get(number, (f"[PAD{number}]", _UNUSED)) for number in range(n_tokens)]
    return [token for token, _ in listed], [kind for _, kind in listed]


def _split(tokenizer: dict[str, Any]) -> str:
    """Return llama.cpp's name of the way in which the tokenizer splits text."""
    step = tokenizer.get("pre_tokenizer") or {}
    steps: list[dict[str, Any]] = step.get("pretokenizers", [step])
    last = steps[-1]
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        match steps[:-1], last.get("use_regex", True):
            case [], True:
                return "gpt-2"
            case [{"type": "Digits", "individual_digits": True}], True:
                return "smollm"
            case [{"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}], False:
                if regex in _SPLITS:
                    return _SPLITS[regex]
            case _:
                pass
    raise ExportRefused("its tokenizer splits text in a way that llama.cpp has not, so the file would tokenize otherwise")


def _add_pieces(
    writer: Any, folder: Path, tokenizer: dict[str, Any], tokens: list[str], types: list[int], merges: list[list[str]]
) -> None:
    """Write a vocabulary of pieces: llama.cpp merges into the piece of the highest value, which is the earliest merge's."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - needed for these alone

    if _SPACE not in json.dumps([tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")], ensure_ascii=False):
        raise ExportRefused("its tokenizer does not mark spaces as llama.cpp does, so the file would tokenize otherwise")
    values: dict[str, float] = {}
    for rank, (left, right) in enumerate(merges):
        values.setdefault(left + right, -float(rank))
    first = Tokenizer.from_file(str(folder / TOKENIZER)).encode("x", add_special_tokens=False).tokens[0]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([values.get(token, _LAST) for token in tokens])
    writer.add_token_types(types)
    writer.add_add_space_prefix(first.startswith(_SPACE))


def _add_special(writer: Any, folder: Path, numbers: dict[str, int]) -> None:
    from tokenizers import Tokenizer  # noqa: PLC0415 - loads its library

    named = _json(folder / TOKENIZER_CONFIG)
    config = {**_json(folder / "config.json"), **_json(folder / "generation_config.json")}
    ends = config.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    eos = _number(named.get("eos_token"), numbers)
    eos = ends[0] if eos is None and ends else eos
    pad = _number(named.get("pad_token"), numbers)
    bos = _number(named.get("bos_token"), numbers)
    begins = Tokenizer.from_file(str(folder / TOKENIZER)).encode("x", add_special_tokens=True).ids
    writer.add_add_bos_token(bos is not None and bool(begins) and begins[0] == bos)
    writer.add_add_eos_token(False)
    # A file that names no first token gets one of llama.cpp's own choice.
    for add, number in (
        (writer.add_bos_token_id, next((token for token in (bos, pad, eos) if token is not None), None)),
        (writer.add_eos_token_id, eos),
        (writer.add_eot_token_id, next((token for token in ends if token != eos), None)),
        (writer.add_pad_token_id, pad),
    ):
        if number is not None:
            add(number)


def _number(token: Any, numbers: dict[str, int]) -> int | None:
    return numbers.get(token["content"] if isinstance(token, dict) else token) if token else None


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
