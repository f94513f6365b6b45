"""Folders of tiny random models of several families, with a tokenizer whose tokens are bytes."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import PreTokenizer
from transformers import GemmaConfig, MistralConfig, PreTrainedTokenizerFast, Qwen2Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from parity.families import tiny_config

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{%- if message.role == 'assistant' %}{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("1", "2"), ("12", "3"), ("'", "s")]


def tokenizer(split: str | None = None, *, digits: bool = False) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes and a few merges; text is split by a regular expression, by digits, or as GPT-2 does."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    for left, right in _MERGES:
        vocabulary[left + right] = len(vocabulary)
    made = Tokenizer(BPE(vocab=vocabulary, merges=_MERGES))
    before: list[PreTokenizer] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    if split is not None:
        before = [pre_tokenizers.Split(Regex(split), "isolated")]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    made.pre_tokenizer = pre_tokenizers.Sequence([*before, last]) if before else last
    made.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.add_tokens(["<tool_call>"])
    fast.chat_template = TEMPLATE
    return fast


def make_folder(
    folder: Path,
    family: str,
    *,
    dtype: torch.dtype = torch.float32,
    shard: str = "1GB",
    spread: float = 0.15,
    **changes: Any,
) -> Path:
    """Write a model of a family, the same for every call, and return its folder; its embedding has rows without a token."""
    fast = tokenizer()
    fast.save_pretrained(folder)
    shape: dict[str, Any] = {"vocab_size": len(fast) + 5, "eos_token_id": fast.eos_token_id, **changes}
    shape |= {"bos_token_id": None, "pad_token_id": fast.pad_token_id}
    model = AutoModelForCausalLM.from_config(_config(family, shape), attn_implementation="eager")
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, spread, generator=generator)
        else:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    return folder


def _config(family: str, shape: dict[str, Any]) -> Any:
    tiny = tiny_config("llama", **shape).to_dict()
    plain = {key: tiny[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "max_position_embeddings")}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    if family == "qwen2":
        return Qwen2Config(**plain, **heads, **shape, tie_word_embeddings=False)
    if family == "mistral":
        return MistralConfig(**{**plain, **heads, "head_dim": 16, "sliding_window": 7, **shape})
    if family == "gemma":
        return GemmaConfig(**plain, **heads, **shape, head_dim=16)
    return tiny_config(family, **shape)
