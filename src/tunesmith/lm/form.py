# pyright: basic
"""Decoders of Llama's form (Llama, Qwen2, Qwen3, Mistral and whoever is built alike), recognised part by part.

That such a decoder computes like Llama's has still to be proven by whoever computes it without its modules.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from tunesmith.lm.last_layer import AskedOnly
from tunesmith.lm.lora import LoraLinear

#: Rotations that depend on nothing but the position.
_ROTATIONS: Final = frozenset({"default", "linear", "llama3", "yarn"})
_ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP: Final = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Norm:
    """Root mean square normalisation of the last dimension; the weight is in fp32."""

    weight_C: Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class LayerForm:
    """The parts of one decoder layer."""

    before_attention: Norm
    q: LoraLinear
    k: LoraLinear
    v: LoraLinear
    #: Of the heads of queries and keys; None where they are taken as they are.
    of_heads: Norm | None
    o: LoraLinear
    before_mlp: Norm
    gate: LoraLinear
    up: LoraLinear
    down: LoraLinear
    n_queries: int
    n_keys: int
    head_size: int
    scaling: float


@dataclass(frozen=True, slots=True)
class Form:
    """A decoder of Llama's form."""

    embedding_VC: Tensor
    rotary: nn.Module
    layers: tuple[LayerForm, ...]
    norm: Norm


def recognise(decoder: Any) -> Form | None:
    """Return the parts of a decoder whose linear layers take adapters, None where it is of another form."""
    if not _is(decoder, "embed_tokens", "layers", "norm", "rotary_emb") or type(decoder.embed_tokens) is not nn.Embedding:
        return None
    if getattr(decoder.rotary_emb, "rope_type", None) not in _ROTATIONS or not len(decoder.layers):
        return None
    # a part that was spread over processes, or quantised, is not a plain tensor
    if not all(type(parameter.data) is Tensor for parameter in decoder.parameters()):
        return None
    layers = [_layer(layer) for layer in decoder.layers]
    norm = _norm(decoder.norm)
    if norm is None or not all(layers):
        return None
    return Form(decoder.embed_tokens.weight, decoder.rotary_emb, tuple(layer for layer in layers if layer), norm)


def _layer(layer: Any) -> LayerForm | None:
    if not _is(layer, "self_attn", "mlp", "input_layernorm", "post_attention_layernorm"):
        return None
    attention, mlp = layer.self_attn, layer.mlp.inner if isinstance(layer.mlp, AskedOnly) else layer.mlp
    if not _is(mlp, *_MLP, "act_fn") or type(mlp.act_fn).__name__ not in ("SiLU", "SiLUActivation"):
        return None
    of_heads = _is(attention, *_ATTENTION, "q_norm", "k_norm")
    if not of_heads and not _is(attention, *_ATTENTION):
        return None
    head_size, scaling = getattr(attention, "head_dim", None), getattr(attention, "scaling", None)
    parts = [getattr(attention, name) for name in _ATTENTION] + [getattr(mlp, name) for name in _MLP]
    if not isinstance(head_size, int) or not isinstance(scaling, float):
        return None
    if not all(isinstance(part, LoraLinear) for part in parts):
        return None
    if (
        any(part.base.out_features % head_size for part in parts[:3])
        or len({part.base.out_features for part in parts[1:3]}) > 1
    ):
        return None
    norms = [_norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)]
    norms += [_norm(attention.q_norm), _norm(attention.k_norm)] if of_heads else []
    if not all(norms) or any(norm and norm.weight_C.shape != (head_size,) for norm in norms[2:]):
        return None
    q, k, v, o, gate, up, down = parts
    n_queries, n_keys = q.base.out_features // head_size, k.base.out_features // head_size
    first, second, *heads = (norm for norm in norms if norm is not None)
    joined: Norm | None = None
    if heads:
        of_q, of_k = heads
        if of_q.eps != of_k.eps:
            return None
        weights = [of_q.weight_C.detach().expand(n_queries, -1), of_k.weight_C.detach().expand(n_keys, -1)]
        joined = Norm(torch.cat(weights), of_q.eps)
    return LayerForm(
        first, q, k, v, joined, o, second, gate, up, down, n_queries, n_keys, head_size, scaling,
    )  # fmt: skip


def _norm(module: Any) -> Norm | None:
    alike = type(module).__name__.endswith("RMSNorm") and [*module._parameters] == ["weight"]
    eps = getattr(module, "variance_epsilon", None)
    return Norm(module.weight.detach().float(), eps) if alike and isinstance(eps, float) else None


def _is(module: Any, *names: str) -> bool:
    """Whether a module has exactly these parts, no parameter of its own, and nothing hooked to it."""
    hooks = module._forward_hooks or module._forward_pre_hooks
    return {name for name, _ in module.named_children()} == set(names) and not module._parameters and not hooks
