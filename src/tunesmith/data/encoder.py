"""A folder of an embedding model, as sentence-transformers writes it: how its vectors are made of a transformer's output."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunesmith.data.folder import BrokenFolder, read_folder

MODULES: Final = "modules.json"
SETTINGS: Final = "sentence_bert_config.json"
PROMPTS: Final = "config_sentence_transformers.json"
POOLINGS: Final = ("mean", "cls", "max", "lasttoken")
_OLD_POOLINGS: Final = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}


@dataclass(frozen=True, slots=True)
class Encoder:
    """What a folder says about its embedding model."""

    architecture: str
    #: Tokens of a text, the special ones among them.
    n_max_tokens: int
    #: Numbers of a vector.
    n_dimensions: int
    n_parameters: int
    weights_bytes: int
    #: Of `POOLINGS`.
    pooling: str
    #: Whether vectors have the length 1.
    normalized: bool
    #: What stands before every text.
    prompt: str


def read_encoder(path: Path) -> Encoder:
    """Read what a folder says; one without `modules.json` is pooled by the mean, and its vectors are normalised.

    Raises:
        BrokenFolder: a file is absent or malformed, or says what cannot be done here.
    """
    folder = read_folder(path)
    if folder.config.get("auto_map"):
        raise BrokenFolder(f"{path} brings code of its own (auto_map), which is never run.")
    pooling, normalized = _pooling(path)
    settings, prompts = _told(path / SETTINGS), _told(path / PROMPTS)
    n_max, n_dimensions = settings.get("max_seq_length"), folder.config.get("hidden_size") or folder.config.get("dim")
    if not isinstance(n_dimensions, int):
        raise BrokenFolder(f"{path} tells no width of its vectors (hidden_size).")
    named = prompts.get("default_prompt_name")
    return Encoder(
        architecture=folder.architecture,
        n_max_tokens=min(n_max, folder.context_length) if isinstance(n_max, int) else folder.context_length,
        n_dimensions=n_dimensions,
        n_parameters=folder.n_parameters,
        weights_bytes=folder.weights_bytes,
        pooling=pooling,
        normalized=normalized,
        prompt=str((prompts.get("prompts") or {}).get(named, "")) if named else "",
    )


def _pooling(path: Path) -> tuple[str, bool]:
    if not (path / MODULES).is_file():
        return "mean", True
    pooling, normalized = "mean", False
    modules: Any = _json(path / MODULES)
    for module in modules if isinstance(modules, list) else [{}]:
        kind = str(module.get("type", "")).rsplit(".", 1)[-1] if isinstance(module, dict) else ""
        if kind == "Pooling":
            pooling = _mode(path / str(module.get("path", "")) / "config.json")
        elif kind == "Normalize":
            normalized = True
        elif kind != "Transformer":
            raise BrokenFolder(
                f"{path / MODULES} has a module {kind or '?'}: known here are Transformer, Pooling and Normalize."
            )
    return pooling, normalized


def _mode(file: Path) -> str:
    told = _told(file)
    modes = [name for key, name in _OLD_POOLINGS.items() if told.get(key)]
    mode = told.get("pooling_mode", modes[0] if len(modes) == 1 else "+".join(modes) or "mean")
    if mode not in POOLINGS:
        raise BrokenFolder(f"{file} pools by {mode}: known here are {', '.join(POOLINGS)}.")
    return str(mode)


def _told(file: Path) -> dict[str, Any]:
    content = _json(file) if file.is_file() else {}
    if not isinstance(content, dict):
        raise BrokenFolder(f"{file} is not a JSON object.")
    return content


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BrokenFolder(f"{file} cannot be read as JSON: {error}") from error
