"""GGUF files: what the package's own reader finds in them, and what llama.cpp computes with them where it is installed."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from near import NANO, random_adapter
from near.folders import make_folder, tokenizer
from tunesmith.lm.gguf_file import Plan, planned
from tunesmith.lm.gguf_vocabulary import _SPLITS, without_generation
from tunesmith.lm.merge import Correction, ExportRefused, Weights

TEXT = "<|im_start|>user\nhello world, that's 12345 or  7 ünï!\n\n  <tool_call>{}<|im_end|>\n"
EMBEDDED = Path(__file__).parents[3] / "src" / "tunesmith" / "bases" / NANO

needs_llama = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None or importlib.util.find_spec("diskcache") is None,
    reason="llama-cpp-python is not installed",
)


def write(folder: Path, *, wanted: str = "auto", correction: Correction | None = None) -> Path:
    plan = planned(folder, Weights(folder, correction), name="mine", wanted=wanted)
    return _written(plan, folder.parent / f"{wanted}.gguf")


def _written(plan: Plan, path: Path) -> Path:
    path.write_bytes(b"".join(bytes(chunk) for chunk in plan.chunks()))
    assert path.stat().st_size == plan.n_bytes
    return path


def fields(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def tensors(path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for tensor in gguf.GGUFReader(path).tensors:
        shape = [int(n) for n in reversed(tensor.shape)]
        if tensor.tensor_type == gguf.GGMLQuantizationType.BF16:
            found[tensor.name] = torch.from_numpy(tensor.data.copy()).view(torch.bfloat16).view(shape)
        else:
            found[tensor.name] = torch.from_numpy(tensor.data.copy()).view(shape)
    return found


def test_a_file_has_its_facts_tokens_and_template(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "base", "llama")
    told = fields(write(folder))
    assert told["general.architecture"] == "llama"
    assert told["general.name"] == "mine"
    assert told["general.file_type"] == 0
    assert told["llama.context_length"] == 128
    assert (told["llama.attention.head_count"], told["llama.attention.head_count_kv"]) == (4, 2)
    assert told["llama.attention.key_length"] == told["llama.rope.dimension_count"] == 8
    fast = AutoTokenizer.from_pretrained(folder)
    tokens = told["tokenizer.ggml.tokens"]
    assert tokens[: len(fast)] == fast.convert_ids_to_tokens(list(range(len(fast))))
    assert tokens[len(fast) :] == [f"[PAD{number}]" for number in range(len(fast), len(fast) + 5)]
    kinds = dict(zip(tokens, told["tokenizer.ggml.token_type"], strict=True))
    assert (kinds["a"], kinds["<|im_end|>"], kinds["<tool_call>"], kinds[tokens[-1]]) == (1, 3, 4, 5)
    assert (told["tokenizer.ggml.model"], told["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    assert told["tokenizer.ggml.eos_token_id"] == fast.eos_token_id
    assert told["tokenizer.ggml.padding_token_id"] == fast.pad_token_id
    assert told["tokenizer.ggml.add_bos_token"] is False
    assert "generation" not in told["tokenizer.chat_template"].replace("add_generation_prompt", "")


def test_the_template_without_its_tag_says_the_same() -> None:
    fast = tokenizer()
    said: list[Any] = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": " world "}] * 2
    expected = fast.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    fast.chat_template = without_generation(str(fast.chat_template))
    assert fast.apply_chat_template(said, tokenize=False, add_generation_prompt=True) == expected


@pytest.mark.parametrize(("wanted", "dtype"), [("auto", torch.bfloat16), ("f16", torch.float16), ("f32", torch.float32)])
def test_the_numbers_are_of_the_chosen_type_and_rounded_once(tmp_path: Path, wanted: str, dtype: torch.dtype) -> None:
    folder = make_folder(tmp_path / "base", "qwen3", dtype=torch.bfloat16)
    path = "model.layers.1.mlp.up_proj"
    factors = (torch.randn(2, 32), torch.randn(48, 2))
    weights = Weights(folder, Correction({path: factors}, 0.5))
    file = _written(planned(folder, weights, name="mine", wanted=wanted), tmp_path / "x.gguf")
    found = tensors(file)
    assert {name for name, tensor in found.items() if tensor.dtype is not dtype} <= {
        name for name, tensor in found.items() if tensor.dim() == 1 and tensor.dtype is torch.float32
    }
    base = Weights(folder, None).tensor(f"{path}.weight").float()
    exact = torch.addmm(base, factors[1], factors[0], alpha=0.5)
    assert torch.equal(found["blk.1.ffn_up.weight"], exact.to(dtype))
    assert "output.weight" not in found  # tied to the embedding


def test_what_f16_cannot_hold_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "base", "llama", spread=1e6)
    with pytest.raises(ExportRefused, match="f16 cannot hold"):
        write(folder, wanted="f16")
    write(folder, wanted="bf16")


def test_other_architectures_are_refused_with_what_is_possible(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "base", "mixtral")
    with pytest.raises(ExportRefused, match=r"mixtral is not written here: llama, mistral, qwen2, qwen3, gemma are\."):
        write(folder)


@pytest.mark.parametrize(
    ("family", "changes", "told"),
    [
        ("llama", {"hidden_act": "relu"}, "the activation relu"),
        ("qwen3", {"attention_bias": True}, "biases in its attention"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "kind dynamic"),
    ],
)
def test_settings_that_llama_cpp_has_not_are_refused(tmp_path: Path, family: str, changes: Any, told: str) -> None:
    folder = make_folder(tmp_path / "base", family)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ExportRefused, match=told):
        write(folder)


def test_a_tokenizer_that_splits_otherwise_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "base", "llama")
    tokenizer(r"\p{L}+|.").save_pretrained(folder)
    with pytest.raises(ExportRefused, match="splits text in a way that llama"):
        write(folder)


def test_a_window_that_llama_cpp_does_not_keep_to_bounds_the_context(tmp_path: Path) -> None:
    assert fields(write(make_folder(tmp_path / "base", "mistral")))["llama.context_length"] == 7


# ---- what llama.cpp makes of them


def by_llama_cpp(path: Path, ids: list[int]) -> Tensor:
    import llama_cpp
    import numpy as np

    model = llama_cpp.Llama(
        str(path), logits_all=True, verbose=False, n_ctx=256, n_threads=1, type_k=0, type_v=0, flash_attn=False
    )
    try:
        model.eval(ids)
        return torch.from_numpy(np.array(model.scores[: len(ids)])).log_softmax(-1)
    finally:
        model.close()


def tokenized(path: Path, text: str, *, add_bos: bool = False) -> list[int]:
    import llama_cpp

    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    try:
        return model.tokenize(text.encode(), add_bos=add_bos, special=True)
    finally:
        model.close()


@torch.no_grad()
def by_transformers(folder: Path, ids: list[int]) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model(torch.tensor([ids])).logits[0].log_softmax(-1)


LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip


@needs_llama
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("llama", {"rope_parameters": LLAMA3}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("mistral", {"sliding_window": None}),
        ("gemma", {}),
    ],
)
def test_llama_cpp_says_what_transformers_says(tmp_path: Path, family: str, changes: Any) -> None:
    folder = make_folder(tmp_path / "base", family, **changes)
    ids = AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"]
    theirs = by_llama_cpp(write(folder), ids)
    assert (theirs - by_transformers(folder, ids)).abs().max() < 1e-3


@needs_llama
def test_llama_cpp_says_what_a_tuned_embedded_base_says(tmp_path: Path) -> None:
    files = random_adapter(EMBEDDED)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    import hashlib

    import peft

    from tunesmith.lm.merge import read_correction

    correction = read_correction(tmp_path, hashlib.sha256(files["adapter_model.safetensors"]).hexdigest())
    file = _written(planned(EMBEDDED, Weights(EMBEDDED, correction), name="x", wanted="f32"), tmp_path / "x.gguf")
    ids = AutoTokenizer.from_pretrained(EMBEDDED)(TEXT)["input_ids"]
    assert tokenized(file, TEXT) == ids
    base = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    with torch.no_grad():
        ours = peft.PeftModel.from_pretrained(base, str(tmp_path))(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert (by_llama_cpp(file, ids) - ours).abs().max() < 5e-3


@needs_llama
@pytest.mark.parametrize("split", [None, "digits", *_SPLITS])
def test_llama_cpp_tokenizes_as_we_do(tmp_path: Path, split: str | None) -> None:
    folder = make_folder(tmp_path / "base", "llama")
    fast = tokenizer(None if split == "digits" else split, digits=split == "digits")
    fast.save_pretrained(folder)
    assert tokenized(write(folder), TEXT) == fast(TEXT)["input_ids"]


@needs_llama
@pytest.mark.parametrize("prefix", [True, False])
def test_llama_cpp_merges_characters_as_we_do(tmp_path: Path, prefix: bool) -> None:
    folder = make_folder(tmp_path / "base", "llama", vocab_size=280)
    fast = _pieces(prefix=prefix)
    fast.save_pretrained(folder)
    for text in ("hello hello world", "hello", " a  helloü\u20ac"):
        ids = fast(text)["input_ids"]
        assert tokenized(write(folder), text, add_bos=True) == ids, fast.convert_ids_to_tokens(ids)


def _pieces(*, prefix: bool) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the kind that SentencePiece's BPE becomes."""
    space = "\u2581"
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), (space, "hello"), (space, "w"), ("o", "r")]
    pieces = ["<unk>", "<s>", "<|im_end|>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [space, *"abdehlorw", *(left + right for left, right in merges)]
    model = BPE(
        vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges, unk_token="<unk>", byte_fallback=True
    )
    made = Tokenizer(model)
    replace = normalizers.Replace(" ", space)
    made.normalizer = normalizers.Sequence([normalizers.Prepend(space), replace]) if prefix else replace
    made.decoder = decoders.Sequence([decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse()])
    from tokenizers.processors import TemplateProcessing

    made.post_processor = TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="<|im_end|>")
