"""A base of two random layers whose tokens are bytes, for tests in which it matters what may be sampled and not what is."""

from collections.abc import Sequence
from pathlib import Path

from tunesmith.data.folder import fingerprint, pins
from tunesmith.domain.model import Base

TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(folder: Path, *, template: str = TEMPLATE, n_context: int = 400, tokens: Sequence[str] = ()) -> None:
    """Make the base in a folder; `tokens` are texts that are one token each, beside the bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *tokens]})
    fast.chat_template = template
    fast.save_pretrained(folder)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=n_context, tie_word_embeddings=False,
        eos_token_id=fast.eos_token_id, bos_token_id=None, pad_token_id=None, initializer_range=0.4,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def base_of(folder: Path, name: str, *, n_context: int = 400, aliases: Sequence[str] = ()) -> Base:
    """Return the row of a base in a folder."""
    return Base(
        name=name, kind="folder", source=str(folder), path=str(folder), created_at=1.0, architecture="LlamaForCausalLM",
        context_length=n_context, n_parameters=30_000, weights_bytes=120_000, pins=pins(folder), aliases=list(aliases),
        fingerprint=fingerprint(folder),
    )  # fmt: skip
