# pyright: basic
"""A model as one GGUF file: the header by the `gguf` package, then the tensors one by one as llama.cpp wants them.

An architecture is one line in `ARCHITECTURES`. What llama.cpp would compute otherwise than transformers is refused.
"""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoConfig

from tunesmith.data.folder import chat_template, read_folder
from tunesmith.lm.gguf_vocabulary import add_vocabulary, without_generation
from tunesmith.lm.merge import ExportRefused, Weights, raw

#: transformers' model types, by llama.cpp's name of the architecture; and the activation that llama.cpp has for it.
ARCHITECTURES: Final = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma"}
_ACTIVATIONS: Final = {"gemma": ("gelu", "gelu_pytorch_tanh")}
#: Types of the weights: GGUF's number of the type of a file, and torch's type.
TYPES: Final = {"f32": (0, torch.float32), "f16": (1, torch.float16), "bf16": (32, torch.bfloat16)}
_AS_STORED: Final = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
_EMBEDDING: Final = "token_embd.weight"
_HEAD: Final = "output.weight"
_ALIGNMENT: Final = 32


@dataclass(frozen=True, slots=True)
class _Planned:
    """A tensor of the file."""

    name: str
    dtype: torch.dtype
    n_bytes: int
    shape: tuple[int, ...]
    make: Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Plan:
    """A file whose size is known and whose tensors are not read yet."""

    header: bytes
    tensors: list[_Planned]

    @property
    def n_bytes(self) -> int:
        """How long the file will be."""
        return len(self.header) + sum(_padded(tensor.n_bytes) for tensor in self.tensors)

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the file's bytes.

        Raises:
            ExportRefused: a number does not fit the type.
        """
        yield self.header
        for tensor in self.tensors:
            yield raw(_cast(tensor.make(), tensor.dtype, tensor.name))
            yield bytes(_padded(tensor.n_bytes) - tensor.n_bytes)


def planned(folder: Path, weights: Weights, *, name: str, wanted: str) -> Plan:
    """Return the file of a model; `wanted` is one of `TYPES`, or `auto` for the type that the base is stored in.

    Raises:
        ExportRefused: llama.cpp has not this architecture, one of its settings or its tokenizer, or `gguf` is not installed.
    """
    try:
        import gguf  # noqa: PLC0415 - a dependency of its own
    except ImportError as error:
        raise ExportRefused(
            "GGUF files are written by the package gguf, which is not installed: pip install 'tunesmith[export]'"
        ) from error
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    architecture = ARCHITECTURES.get(config.model_type)
    if architecture is None:
        raise ExportRefused(
            f"a GGUF file of the architecture {config.model_type} is not written here: {', '.join(ARCHITECTURES)} are. "
            "The formats adapter and merged are written for every base"
        )
    _check(config, architecture)
    (by_name,) = [value for value, text in gguf.MODEL_ARCH_NAMES.items() if text == architecture]
    known = gguf.get_tensor_name_map(by_name, config.num_hidden_layers)
    tensors = _tensors(config, architecture, weights, known, wanted)
    context_length = read_folder(folder).context_length
    writer = gguf.GGUFWriter(None, architecture)
    writer.add_name(name)
    writer.add_file_type(next(number for number, dtype in TYPES.values() if dtype is tensors[0].dtype))
    _add_facts(writer, config, architecture, context_length)
    add_vocabulary(writer, folder, n_tokens=tensors[0].shape[0])
    template = chat_template(folder)
    if template:
        writer.add_chat_template(without_generation(template))
    for tensor in tensors:
        kind = getattr(gguf.GGMLQuantizationType, _by_dtype(tensor.dtype).upper())
        writer.add_tensor_info(tensor.name, tensor.shape, None, tensor.n_bytes, raw_dtype=kind)  # type: ignore[arg-type]  # the raw type says it
    header = _header(writer)
    return Plan(header + bytes(_padded(len(header)) - len(header)), tensors)


def _header(writer: Any) -> bytes:
    """Return what the writer would put into a file before the tensors' numbers."""
    from gguf.gguf_writer import WriterState  # noqa: PLC0415 - a dependency of its own

    memory = io.BytesIO()
    writer.fout, writer.state = [memory], WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return memory.getvalue()


def _check(config: Any, architecture: str) -> None:
    """Refuse settings that llama.cpp does not have for the architecture."""
    rope = config.rope_parameters
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    odd: list[str] = []
    if activation not in _ACTIVATIONS.get(architecture, ("silu",)):
        odd.append(f"the activation {activation}")
    kinds = {"default", "linear", "yarn", *(["llama3"] if architecture == "llama" else [])}
    if rope.get("rope_type", "default") not in kinds:
        odd.append(f"positions of the kind {rope['rope_type']}")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        odd.append("positions that turn a part of a head")
    if getattr(config, "attention_bias", False) and architecture in {"qwen3", "gemma"}:
        odd.append("biases in its attention")
    if odd:
        raise ExportRefused(f"llama.cpp has for {architecture} no {' and no '.join(odd)}")


def _tensors(config: Any, architecture: str, weights: Weights, known: Any, wanted: str) -> list[_Planned]:
    """Return the tensors as they are to be written, the embedding first."""
    named: dict[str, str] = {}
    for name in weights.entries:
        theirs = known.get_name(name, try_suffixes=(".weight", ".bias"))
        if name.endswith("rotary_emb.inv_freq") or (theirs == _HEAD and config.tie_word_embeddings):
            continue
        if theirs is None:
            raise ExportRefused(f"the base has a tensor {name} that llama.cpp's {architecture} has not")
        named[theirs] = name
    if _EMBEDDING not in named:
        raise ExportRefused(f"the base's files have no tensor that llama.cpp calls {_EMBEDDING}")
    stored = weights.entries[named[_EMBEDDING]][1].dtype
    if stored not in _AS_STORED:
        raise ExportRefused(f"the base is stored as {stored}, and {', '.join(_AS_STORED)} are what can be written")
    chosen = TYPES[_AS_STORED[stored] if wanted == "auto" else wanted][1]
    tensors: list[_Planned] = []
    for theirs, name in sorted(named.items(), key=lambda pair: pair[0] != _EMBEDDING):
        shape = weights.entries[name][1].shape
        dtype = chosen if len(shape) > 1 else torch.float32
        n_bytes = math.prod(shape) * dtype.itemsize
        change = _change(config, architecture, theirs)
        tensors.append(_Planned(theirs, dtype, n_bytes, shape, partial(_made, weights, name, change)))
    factors = _rope_factors(config)
    if factors is not None:
        tensors.append(_Planned("rope_freqs.weight", torch.float32, factors.nbytes, tuple(factors.shape), lambda: factors))
    return tensors


def _made(weights: Weights, name: str, change: Callable[[Tensor], Tensor]) -> Tensor:
    return change(weights.tensor(name))


def _change(config: Any, architecture: str, name: str) -> Callable[[Tensor], Tensor]:
    """Return what is done to a tensor so that llama.cpp computes the same with it."""
    if architecture == "llama" and ".attn_q." in name:
        return partial(_interleaved, n_heads=config.num_attention_heads)
    if architecture == "llama" and ".attn_k." in name:
        return partial(_interleaved, n_heads=config.num_key_value_heads)
    if architecture == "gemma" and name.endswith("norm.weight"):
        return lambda tensor: tensor.float() + 1.0  # transformers adds it when it computes
    return lambda tensor: tensor


def _interleaved(tensor: Tensor, *, n_heads: int) -> Tensor:
    """Order the rows of each head so that those that are turned together lie side by side, not half a head apart."""
    rows = tensor.view(n_heads, 2, -1, *tensor.shape[1:])
    return rows.transpose(1, 2).reshape(tensor.shape)


def _rope_factors(config: Any) -> Tensor | None:
    """Return what llama.cpp divides each frequency by where positions are stretched as Llama 3.1 does it."""
    rope = config.rope_parameters
    if rope.get("rope_type") != "llama3":
        return None
    size = _head_size(config)
    frequencies = 1.0 / rope["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float64) / size)
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1.0 / (kept + (1.0 - kept) / rope["factor"])).float()


def _add_facts(writer: Any, config: Any, architecture: str, context_length: int) -> None:
    size = _head_size(config)
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True):
        context_length = min(context_length, window)  # beyond it llama.cpp would look further back than the model does
    writer.add_context_length(context_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    if architecture == "llama":
        writer.add_rope_dimension_count(size)
        writer.add_vocab_size(config.vocab_size)
    if rope.get("rope_type") in {"linear", "yarn"}:
        _add_scaling(writer, rope)


def _add_scaling(writer: Any, rope: dict[str, Any]) -> None:
    import gguf  # noqa: PLC0415 - a dependency of its own

    linear = rope["rope_type"] == "linear"
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR if linear else gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope["factor"])
    if not linear:
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def _head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _cast(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    cast = tensor.to(dtype)
    if dtype is torch.float16 and not torch.isfinite(cast).all():
        raise ExportRefused(f"{name} has numbers that f16 cannot hold; bf16 and f32 can")
    return cast


def _by_dtype(dtype: torch.dtype) -> str:
    return next(name for name, (_, each) in TYPES.items() if each is dtype)


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
