"""The bases that are sampled from: the embedded one, and one of half a billion random weights; as GGUF for llama.cpp."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import tunesmith

NANO = Path(tunesmith.__file__).parent / "bases" / "tunesmith-nano"
HALF_BILLION: dict[str, Any] = {
    "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 2048, "tie_word_embeddings": True,
}  # fmt: skip
NAMES = {
    "embed_tokens": "token_embd", "norm": "output_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def make(name: str, dtype: torch.dtype) -> Any:
    """Return a base, the same at every call."""
    if name == "nano":
        return AutoModelForCausalLM.from_pretrained(NANO, dtype=dtype).eval()
    torch.manual_seed(0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**HALF_BILLION), dtype=dtype)
    model = model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = (
            parameter.data.fill_(1.0) if parameter.dim() == 1 else parameter.data.normal_(0, 0.02, generator=generator)
        )
    model.tie_weights()
    rotary = model.model.rotary_emb
    rotary.inv_freq = rotary.compute_default_rope_parameters(model.config)[0]
    return model.eval()


def write_gguf(model: Any, file: Path, dtype: torch.dtype) -> None:
    """Write a Llama for llama.cpp, in f16 where the others compute in bf16, without a tokenizer: nobody needs it here."""
    import gguf

    c = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    writer.add_vocab_size(c.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    for path, parameter in model.model.named_parameters():
        layer, _, part = path.removeprefix("layers.").partition(".") if path.startswith("layers.") else ("", "", path)
        values = parameter.detach().float().numpy()
        for name, n_heads in (("q_proj", c.num_attention_heads), ("k_proj", c.num_key_value_heads)):
            if name in part:  # llama.cpp turns neighbouring numbers, not halves
                values = values.reshape(n_heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        half = dtype == torch.bfloat16 and values.ndim == 2
        name = f"{f'blk.{layer}.' if layer else ''}{NAMES[part.removesuffix('.weight')]}.weight"
        writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float16 if half else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
