"""Tiny models of three families, built in code with random weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, LlamaConfig, Qwen3Config
from transformers.utils import logging

from tunesmith.lm import attention
from tunesmith.lm.load import Base, wrap

N_VOCAB = 97

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


def tiny_config(family: str) -> Any:
    """Return the configuration of a tiny model of a family."""
    if family == "llama":
        return LlamaConfig(**_SHAPE, attention_bias=True, tie_word_embeddings=False)
    if family == "qwen3":
        return Qwen3Config(**_SHAPE, tie_word_embeddings=True)
    if family == "gemma2":
        return Gemma2Config(**_SHAPE, **_WINDOWS, attn_logit_softcapping=2.0, final_logit_softcapping=3.0)
    return Gemma3TextConfig(**_SHAPE, **_WINDOWS)


def tiny_model(family: str, *, attn: str = attention.NAME, dtype: torch.dtype = torch.float32, spread: float = 0.3) -> Any:
    """Return a tiny model, the same for every call; at the default spread of its weights every knob matters."""
    attention.register()
    logging.set_verbosity_error()
    model = AutoModelForCausalLM.from_config(tiny_config(family), attn_implementation=attn, dtype=torch.float32)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, spread, generator=generator)
        else:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.tie_weights()
    return model.to(dtype)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make_model() -> Callable[..., Any]:
    """Return `tiny_model`."""
    return tiny_model


@pytest.fixture
def make_config() -> Callable[[str], Any]:
    """Return `tiny_config`."""
    return tiny_config


@pytest.fixture
def make_base() -> Callable[..., Base]:
    """Return a function that makes a tiny base of a family."""
    return lambda family, **knobs: wrap(tiny_model(family, **knobs))
