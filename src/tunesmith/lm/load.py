# pyright: basic
"""Loads a base model from a folder: safetensors only, no foreign code, hashes checked, our attention and head in place.

An architecture is taken only if it provably computes the same under our attention and head: `refusals` looks at a
configuration without weights (a dry run on torch's `meta` device), `prove` compares real logits with transformers' own.

Shapes: T tokens, C hidden size, V vocabulary.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from tunesmith.data.folder import BrokenFolder, pins
from tunesmith.lm import attention
from tunesmith.lm.attention import Layout, UnsupportedKnob
from tunesmith.lm.head import Head
from tunesmith.lm.lora import LoraModel, Span, linear_layers, namesake

#: Layer types whose attention is a causal one, with or without a window; anything else mixes tokens in ways packing breaks.
LAYER_TYPES: Final = frozenset({"full_attention", "sliding_attention"})
#: How far our logits may lie from transformers' own, as relative L2.
_PROOF_TOLERANCE: Final = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
_N_PROOF_TOKENS: Final = (11, 6)
_N_SHOWN: Final = 3


class BaseRefused(ValueError):
    """The base cannot be trained or served by this engine; the message is the reason."""


class BaseChanged(ValueError):
    """The folder is not the one that the job was created with."""


@dataclass(frozen=True, slots=True)
class Base:
    """A loaded base model, frozen."""

    model: nn.Module
    decoder: nn.Module
    head: Head
    device: torch.device
    dtype: torch.dtype

    def hidden(self, tokens_T: Tensor, positions_T: Tensor, layout: Layout) -> Tensor:
        """Return the last hidden states (T, C) of documents packed into one row."""
        output = self.decoder(
            input_ids=tokens_T[None], position_ids=positions_T[None], use_cache=False, tunesmith_layout=layout
        )  # fmt: skip
        return output.last_hidden_state[0]


def choose_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def choose_dtype(device: torch.device) -> torch.dtype:
    """Return the type that a base computes in: bf16 where the hardware multiplies it natively, else fp32.

    Natively means a CUDA device of compute capability 8 or more, or a CPU with AVX512-BF16 or AMX-BF16. Elsewhere bf16 is
    emulated: slower than fp32 and less exact. Adapters and optimizer are fp32 always.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float32
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def check_pins(folder: Path, expected: dict[str, str]) -> None:
    """Check that weights, tokenizer and chat template are those that the job pinned at its creation.

    Raises:
        BaseChanged: a hash differs or the folder is gone; the message names what changed.
    """
    try:
        found = pins(folder)
    except BrokenFolder as error:
        raise BaseChanged(f"The base model of this job cannot be read any more: {error}") from error
    changed = sorted(name for name, digest in expected.items() if found.get(name) != digest)
    if changed:
        raise BaseChanged(
            f"The base model in {folder} is not the one this job was created with: its {' and '.join(changed)} changed. "
            "Restore the folder, or create the job anew."
        )


def load(folder: Path, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Base:
    """Load a base for packed training or scoring.

    Raises:
        BaseRefused: the architecture has a setting that this engine does not honour, or the files lack a part of it.
    """
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - seconds, which a base that is known need not wait
    from transformers.utils import logging  # noqa: PLC0415 - as above

    attention.register()
    logging.disable_progress_bar()  # it would fill the log of a process that nobody watches
    device = device if device is not None else choose_device()
    dtype = dtype if dtype is not None else choose_dtype(device)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation=attention.NAME, use_safetensors=True, trust_remote_code=False,
        local_files_only=True, output_loading_info=True,
    )  # fmt: skip
    model, found = loaded
    if absent := sorted(found["missing_keys"]):  # what transformers would make up at random
        more = f" and {len(absent) - _N_SHOWN} more" if len(absent) > _N_SHOWN else ""
        raise BaseRefused(f"the files lack weights of {type(model).__name__}: {', '.join(absent[:_N_SHOWN])}{more}")
    return wrap(nn.Module.to(model, device))


def wrap(model: Any) -> Base:
    """Return a loaded transformers model (built with our attention) as a base; evaluation mode, so that no dropout acts."""
    model.eval()
    decoder = getattr(model, model.base_model_prefix, None)
    if decoder is None or decoder is model:
        raise BaseRefused(f"{type(model).__name__} has no decoder apart from its head")
    weight = next(model.parameters())
    return Base(model, decoder, head_of(model), weight.device, weight.dtype)


def head_of(model: Any) -> Head:
    """Return the model's output head with the settings of its configuration that act on logits.

    Raises:
        BaseRefused: the head is not a linear layer.
    """
    linear = model.get_output_embeddings()
    if not isinstance(linear, nn.Linear):
        raise BaseRefused(f"the output head of {type(model).__name__} is {type(linear).__name__}, not a linear layer")
    config = model.config
    scale = 1.0
    if getattr(config, "logit_scale", None) is not None:
        scale = float(config.logit_scale)
    if getattr(config, "logits_scaling", None) is not None:
        scale /= float(config.logits_scaling)
    return Head(linear.weight, linear.bias, scale, getattr(config, "final_logit_softcapping", None))


def refusals(config: Any) -> list[str]:
    """Return why this engine cannot train an architecture, as sentences; empty where it can.

    The model is built without weights on torch's `meta` device and sent through one pass, in which every attention layer
    shows its settings.
    """
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - as in `load`

    try:
        text = config.get_text_config()
    except ValueError as error:
        return [f"It is not one model of text: {error}"]
    odd = sorted(set(getattr(text, "layer_types", None) or ()) - LAYER_TYPES)
    if odd:
        return [f"It has layers of the kind {', '.join(odd)}; only causal attention (full, or with a window) can be packed."]
    if "dynamic" in _turns(text):
        return ["Its rotary positions (rope_type dynamic) change with the length of what is read, so nothing can be packed."]
    if getattr(text, "attention_dropout", 0.0):
        return ["It asks for attention dropout, which is not applied here: set attention_dropout to 0 in config.json."]
    attention.register()
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch.bfloat16, attn_implementation=attention.NAME, trust_remote_code=False
            )
        return _dry_run(model, text)
    except (UnsupportedKnob, BaseRefused) as error:
        return [f"{type(model).__name__}: {error}." if "model" in locals() else f"{error}."]
    except (TypeError, ValueError, RuntimeError, AttributeError, AssertionError, KeyError) as error:
        return [f"It cannot be run with packed attention and adapters: {type(error).__name__}: {error}"]


def _turns(config: Any) -> set[str]:
    """Return the kinds of a base's rotary positions: one, or one for each kind of layer."""
    turns: Any = getattr(config, "rope_parameters", None) or {}
    return {str(each.get("rope_type")) for each in (turns, *turns.values()) if isinstance(each, dict)}


def _dry_run(model: Any, config: Any) -> list[str]:
    calls: list[tuple[str | None, int | None]] = []

    def watch(module: Any, knobs: dict[str, Any]) -> None:
        calls.append((getattr(module, "layer_type", None), knobs["sliding_window"]))

    base = wrap(model)
    if next(linear_layers(model), None) is None:
        return ["It has no nn.Linear layers beside its head, so there is nothing for LoRA to adapt."]
    if (twin := namesake(model)) is not None:
        return [f"Its module {twin} has the name of layers that LoRA adapts, so its adapters would not fit other servers."]
    lora = LoraModel(model)
    lora.place(0, lora.fresh(seed=0, rank=1))
    n_tokens = 5
    lora.route.spans = (Span(0, 0, n_tokens),)
    row_T = torch.arange(n_tokens, device="meta")
    base.hidden(row_T, row_T, Layout((3, 2), watch=watch))
    n_layers = int(config.num_hidden_layers)
    if len(calls) != n_layers:
        return [f"Only {len(calls)} of its {n_layers} layers take their attention from transformers' registry."]
    types = getattr(config, "layer_types", None) or []
    blind = [i for i, kind in enumerate(types) if kind == "sliding_attention" and calls[i][1] is None]
    window = getattr(config, "sliding_window", None)
    if not types and window and window < config.max_position_embeddings and not any(told for _, told in calls):
        blind = [0]
    if blind:
        return [f"Layer {blind[0]} has a sliding window that its attention is not told of."]
    return []


@torch.no_grad()
def prove(base: Base) -> None:
    """Check that our attention and head give transformers' own logits on a few tokens of two documents packed together.

    Raises:
        BaseRefused: they do not; the message tells the distance.
    """
    vocabulary = base.head.weight_VC.shape[0]
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(vocabulary, (n,), generator=generator) for n in _N_PROOF_TOKENS]
    positions = [torch.arange(n) for n in _N_PROOF_TOKENS]
    packed_TC = base.hidden(
        torch.cat(documents).to(base.device), torch.cat(positions).to(base.device), Layout(_N_PROOF_TOKENS)
    )  # fmt: skip
    ours_TV = base.head.logits(packed_TC)
    model: Any = base.model
    model.set_attn_implementation("eager")
    try:
        theirs = [model(input_ids=tokens[None].to(base.device), use_cache=False).logits[0].float() for tokens in documents]
    finally:
        model.set_attn_implementation(attention.NAME)
    theirs_TV = torch.cat(theirs)
    if not theirs_TV.isfinite().all():
        raise BaseRefused(f"{type(model).__name__} says what is no number: its weights are broken")
    distance = ((ours_TV - theirs_TV).norm() / theirs_TV.norm().clamp(min=1e-9)).item()
    if not distance <= _PROOF_TOLERANCE.get(base.dtype, 5e-2):
        raise BaseRefused(
            f"Our attention and head do not give the logits of {type(model).__name__} (relative distance {distance:.2g}). "
            "It has a setting this engine does not honour."
        )
