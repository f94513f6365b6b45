"""A base model's folder in Hugging Face format: the files that make it, what they say, and the hashes that pin it.

Standard library only, and no byte of a weight is interpreted: server, worker and sampler all ask here whether a folder is
still the one that a job or an adapter was made with.
"""

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CONFIG: Final = "config.json"
TOKENIZER: Final = "tokenizer.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
TEMPLATE: Final = "chat_template.jinja"
INDEX: Final = "model.safetensors.index.json"
#: Names of the configuration keys that hold the longest sequence a model was made for, in the order of preference.
CONTEXT_KEYS: Final = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
#: Kinds of rotary positions that change for the whole sequence when it grows beyond the length of the pre-training.
_STRETCHED: Final = frozenset({"longrope", "su"})
_ORIGINAL: Final = "original_max_position_embeddings"
_PICKLED: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_N_MAX_HEADER_BYTES: Final = 100_000_000


class BrokenFolder(ValueError):
    """The folder does not hold a base model that can be used; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class BaseFolder:
    """What a folder says about its model."""

    path: Path
    config: dict[str, Any]
    architecture: str
    model_type: str
    #: Tokens.
    context_length: int
    n_parameters: int
    weights_bytes: int


def read_folder(path: Path) -> BaseFolder:
    """Read the configuration and the headers of the weights.

    Raises:
        BrokenFolder: a file is absent or malformed, or there are only pickled weights.
    """
    _exists(path)
    config = _json(path / CONFIG)
    if not (path / TOKENIZER).is_file():
        raise BrokenFolder(
            f"{path} has no {TOKENIZER}. Save the fast tokenizer there: AutoTokenizer.from_pretrained(…).save_pretrained(…)."
        )
    n_parameters = 0
    for weights in weight_files(path):
        n_parameters += _n_parameters(weights)
    text = config.get("text_config")
    inner: dict[str, Any] = text if isinstance(text, dict) else {}
    architectures = config.get("architectures") or ["unknown"]
    return BaseFolder(
        path=path,
        config=config,
        architecture=str(architectures[0]),
        model_type=str(config.get("model_type", "")),
        context_length=_context_length(path, {**inner, **config}),
        n_parameters=n_parameters,
        weights_bytes=sum(file.stat().st_size for file in weight_files(path)),
    )


def weight_files(path: Path) -> list[Path]:
    """Return the safetensors files that make the model, sorted by name.

    Raises:
        BrokenFolder: there are none, or one that the index names is absent.
    """
    _exists(path)
    if (path / INDEX).is_file():
        named = {str(name) for name in _json(path / INDEX).get("weight_map", {}).values()}
        if any("/" in name for name in named):
            raise BrokenFolder(f"{path / INDEX} names weights outside of the folder.")
        absent = sorted(name for name in named if not (path / name).is_file())
        if absent:
            raise BrokenFolder(f"{path} lacks {', '.join(absent)}, which {INDEX} names. Is a download incomplete?")
        files = sorted(path / name for name in named)
    else:
        files = sorted(path.glob("*.safetensors"))
        if (path / "model.safetensors") in files:
            files = [path / "model.safetensors"]
    if files:
        return files
    pickled = sorted(file.name for pattern in _PICKLED for file in path.glob(pattern))
    if pickled:
        raise BrokenFolder(
            f"{path} holds pickled weights only ({', '.join(pickled[:3])}). Loading them would run the code inside them, "
            "so only safetensors are taken: model.save_pretrained(…) writes them."
        )
    raise BrokenFolder(f"{path} holds no weights: no *.safetensors file.")


def chat_template(path: Path) -> str | None:
    """Return the text of the folder's chat template (`chat_template.jinja`, else the tokenizer's configuration), or None.

    Raises:
        BrokenFolder: the tokenizer's configuration is not JSON.
    """
    if (path / TEMPLATE).is_file():
        return (path / TEMPLATE).read_text(encoding="utf-8")
    if not (path / TOKENIZER_CONFIG).is_file():
        return None
    template = _json(path / TOKENIZER_CONFIG).get("chat_template")
    if isinstance(template, list):
        named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def pins(path: Path) -> dict[str, str]:
    """Return the sha256 of `weights`, `tokenizer` and `template`.

    Weights in one file have that file's hash; several have the hash of the lines `sha256sum` would print for them, sorted by
    name. The tokenizer is `tokenizer.json`, the template its text (an absent one is the empty text).

    Raises:
        BrokenFolder: a file is absent.
    """
    files = weight_files(path)
    hashes = {file.name: _sha256(file) for file in files}
    if len(files) == 1:
        weights = hashes[files[0].name]
    else:
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
        weights = hashlib.sha256(lines.encode()).hexdigest()
    template = chat_template(path) or ""
    return {
        "weights": weights,
        "tokenizer": _sha256(path / TOKENIZER),
        "template": hashlib.sha256(template.encode()).hexdigest(),
    }


def fingerprint(path: Path) -> str:
    """Return a hash of names, sizes and modification times: while it stays the same, `pins` need no second reading.

    Raises:
        BrokenFolder: a file is absent.
    """
    small = [path / name for name in (CONFIG, TOKENIZER, TOKENIZER_CONFIG, TEMPLATE)]
    parts: list[str] = []
    try:
        for file in [*weight_files(path), *(file for file in small if file.is_file())]:
            status = file.stat()
            parts.append(f"{file.name}:{status.st_size}:{status.st_mtime_ns}")
    except OSError as error:
        raise BrokenFolder(f"{path} cannot be read: {error}") from error
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _exists(path: Path) -> None:
    if not path.is_dir():
        raise BrokenFolder(f"There is no folder {path}.")


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BrokenFolder(f"{file.parent} has no {file.name}: it is not a model folder in Hugging Face format.") from error
    except (OSError, ValueError) as error:
        raise BrokenFolder(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise BrokenFolder(f"{file} is not a JSON object.")
    return content


def _context_length(path: Path, config: dict[str, Any]) -> int:
    for key in CONTEXT_KEYS:
        value = config.get(key)
        if isinstance(value, int) and value > 0:
            return min(value, _unstretched(config) or value)
    tokenizer = _json(path / TOKENIZER_CONFIG) if (path / TOKENIZER_CONFIG).is_file() else {}
    longest = tokenizer.get("model_max_length")
    if isinstance(longest, int) and 0 < longest < 10**9:
        return longest
    raise BrokenFolder(f"{path / CONFIG} tells no context length (none of {', '.join(CONTEXT_KEYS)}).")


def _unstretched(config: dict[str, Any]) -> int | None:
    """Return the length beyond which a base turns every position otherwise, the earlier ones too; None where there is none.

    Up to it a token's place is all that counts, and what else is in the row or the cache does not.
    """
    turns: Any = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(turns, dict):
        return None
    for each in (turns, *turns.values()):  # of the whole base, or of each kind of layer
        if isinstance(each, dict) and (each.get("rope_type") or each.get("type")) in _STRETCHED:
            length = each.get(_ORIGINAL) or config.get(_ORIGINAL)
            return length if isinstance(length, int) and length > 0 else None
    return None


def _n_parameters(file: Path) -> int:
    """Count the elements of a safetensors file from its header, and see that no byte of it is missing."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(size, _N_MAX_HEADER_BYTES):
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        end = max((entry["data_offsets"][1] for entry in entries), default=0)
        if 8 + length + end != size:
            raise ValueError(f"it has {size} bytes and its header tells of {8 + length + end}")
        return sum(_product(entry["shape"]) for entry in entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise BrokenFolder(f"{file} is not a whole safetensors file: {error}") from error


def _product(shape: list[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BrokenFolder(f"{file} cannot be read: {error}") from error
