"""Tiny models of every family that the tests know, built in code with random weights."""

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    Glm4MoeConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    PhimoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)
from transformers.utils import logging

from tunesmith.lm import attention

N_VOCAB = 97
#: Those that gradients are compared for.
FAMILIES = ["llama", "qwen3", "gemma3", "mistral", "qwen3_moe"]

_SHAPE: dict[str, Any] = {
    "vocab_size": N_VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0,
}  # fmt: skip
_WINDOWS: dict[str, Any] = {
    "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "query_pre_attn_scalar": 16,
}
_EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}


def tiny_config(family: str, **changes: Any) -> Any:
    """Return the configuration of a tiny model of a family."""
    shape = _SHAPE | changes
    without_head_size = {key: value for key, value in shape.items() if key != "head_dim"}
    return {
        "llama": lambda: LlamaConfig(**shape, attention_bias=True, tie_word_embeddings=False),
        "qwen3": lambda: Qwen3Config(**shape, tie_word_embeddings=True),
        "gemma2": lambda: Gemma2Config(**shape, **_WINDOWS, attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
        "gemma3": lambda: Gemma3TextConfig(**shape, **_WINDOWS),
        "mistral": lambda: MistralConfig(**shape, sliding_window=7),
        "qwen3_moe": lambda: Qwen3MoeConfig(**shape, **_EXPERTS, num_experts=4, norm_topk_prob=True),
        "mixtral": lambda: MixtralConfig(**shape, sliding_window=7, num_local_experts=4, num_experts_per_tok=2),
        # With experts that every token goes through, and a dense first layer.
        "glm4_moe": lambda: Glm4MoeConfig(
            **shape, **_EXPERTS, n_routed_experts=4, n_shared_experts=1, n_group=1, topk_group=1, first_k_dense_replace=1
        ),
        # Its router is a linear layer with an answer of its own.
        "phimoe": lambda: PhimoeConfig(**without_head_size, num_local_experts=4, num_experts_per_tok=2),
    }[family]()


def tiny_model(
    family: str,
    *,
    attn: str = attention.NAME,
    dtype: torch.dtype = torch.float32,
    spread: float = 0.3,
    experts: str | None = None,
    **changes: Any,
) -> Any:
    """Return a tiny model, the same for every call; at the default spread of its weights every knob matters."""
    attention.register()
    logging.set_verbosity_error()
    model = AutoModelForCausalLM.from_config(
        tiny_config(family, **changes), attn_implementation=attn, experts_implementation=experts, dtype=torch.float32
    )
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, spread, generator=generator)
        else:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.tie_weights()
    return model.to(dtype)
