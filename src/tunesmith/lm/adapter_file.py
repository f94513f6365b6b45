# pyright: basic
"""Adapters as files in PEFT's format: what PEFT, vLLM and llama.cpp load, and what we load back."""

import json
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file, save
from torch import Tensor

from tunesmith.lm.lora import RANKS, Adapter, LoraModel

WEIGHTS: Final = "adapter_model.safetensors"
CONFIG: Final = "adapter_config.json"
_PREFIX: Final = "base_model.model."
#: Settings of PEFT that would make an adapter more than plain LoRA, with the value that means "not used".
_PLAIN: Final[dict[str, Any]] = {
    "bias": "none",
    "use_dora": False,
    "use_rslora": False,
    "modules_to_save": None,
    "fan_in_fan_out": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
    "lora_bias": False,
    "trainable_token_indices": None,
}


class AdapterRefused(ValueError):
    """The folder does not hold an adapter that fits; the message is the reason."""


def to_files(adapter: Adapter, *, base_name: str) -> dict[str, bytes]:
    """Return the adapter's two files by name: weights in fp32, and PEFT's configuration."""
    tensors = {_stored(name): tensor.cpu().contiguous() for name, tensor in adapter.tensors().items()}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "target_modules": sorted({path.rpartition(".")[2] for path in adapter.pairs}),
        **_PLAIN,
    }
    return {WEIGHTS: save(tensors, metadata={"format": "pt"}), CONFIG: json.dumps(config, indent=2).encode()}


def from_folder(folder: Path, lora: LoraModel) -> Adapter:
    """Load an adapter for a model.

    Raises:
        AdapterRefused: files are absent, it is more than plain LoRA, or it does not fit the model.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        stored = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise AdapterRefused(f"{folder} holds no adapter: {error.filename or error} is absent") from error
    odd = [name for name, plain in _PLAIN.items() if config.get(name, plain) not in (plain, None)]
    if config.get("peft_type") != "LORA" or odd:
        raise AdapterRefused(f"{folder} is not a plain LoRA adapter ({', '.join(odd) or config.get('peft_type')})")
    if config["r"] not in RANKS:
        raise AdapterRefused(f"{folder} has rank {config['r']}; ranks that every server loads are {RANKS}")
    try:
        tensors = {_ours(name): tensor for name, tensor in stored.items()}
        return lora.adapter(tensors, rank=config["r"], alpha=config["lora_alpha"])
    except ValueError as error:
        raise AdapterRefused(f"{folder}: {error}") from error


def _stored(name: str) -> str:
    return f"{_PREFIX}{name}.weight"


def _ours(name: str) -> str:
    return name.removeprefix(_PREFIX).removesuffix(".weight")


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU."""
    return load_file(file)
