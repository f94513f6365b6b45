from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    CohereConfig,
    CTRLConfig,
    GPT2Config,
    GPTJConfig,
    GraniteConfig,
    JetMoeConfig,
    Llama4TextConfig,
    MambaConfig,
    MistralConfig,
    MusicgenConfig,
    PhiConfig,
    PhimoeConfig,
    Qwen2Config,
)

from tunesmith.data.folder import pins
from tunesmith.lm import load as loading
from tunesmith.lm.attention import Layout
from tunesmith.lm.head import Head
from tunesmith.lm.load import (
    Base,
    BaseChanged,
    BaseRefused,
    check_pins,
    choose_dtype,
    head_of,
    load,
    prove,
    refusals,
    wrap,
)

SMALL: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
TAKEN: dict[str, Any] = {
    "granite": GraniteConfig(**SMALL, logits_scaling=4.0),
    "cohere": CohereConfig(**SMALL, logit_scale=0.3),
    "mistral": MistralConfig(**SMALL, sliding_window=4, head_dim=8),
    "qwen2": Qwen2Config(**SMALL),
    "phi": PhiConfig(**SMALL),
}


@pytest.mark.parametrize(
    "family", ["llama", "qwen3", "gemma2", "gemma3", "mistral", "qwen3_moe", "mixtral", "glm4_moe", "phimoe"]
)
def test_the_families_are_taken_and_proved(make_config: Any, make_base: Any, family: str) -> None:
    assert refusals(make_config(family)) == []
    prove(make_base(family))


@pytest.mark.parametrize("name", TAKEN)
def test_other_architectures_with_knobs_of_their_own_are_taken_and_proved(name: str) -> None:
    from transformers import AutoModelForCausalLM

    config = TAKEN[name]
    assert refusals(config) == []
    model = AutoModelForCausalLM.from_config(config, attn_implementation="tunesmith")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    prove(wrap(model))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=61), "no nn.Linear"),
        (MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=61), "linear_attention"),
        (BloomConfig(hidden_size=32, n_layer=2, n_head=2, vocab_size=61), "Only 0 of its 2 layers"),
        (Llama4TextConfig(**SMALL), "chunked_attention"),
        (Qwen2Config(**SMALL, attention_dropout=0.1), "attention dropout"),
        (GPTJConfig(n_embd=32, n_layer=2, n_head=2, vocab_size=61, rotary_dim=8), "KeyError: 'tunesmith'"),
        (CTRLConfig(n_embd=32, n_layer=2, n_head=2, dff=48, vocab_size=61), "transformer.h.0 has the name of layers"),
        (MusicgenConfig(text_encoder={"model_type": "t5"}, audio_encoder={"model_type": "encodec"}, decoder={}), "not one"),
        (PhimoeConfig(**SMALL, sliding_window=5), "not told of"),
        (JetMoeConfig(vocab_size=61, hidden_size=32, num_hidden_layers=2, kv_channels=8), "router.layer has the name"),
    ],
)
def test_what_cannot_be_packed_is_refused_with_the_reason(config: Any, told: str) -> None:
    (reason,) = refusals(config)
    assert told in reason


def test_a_head_that_is_told_wrongly_fails_the_proof(make_base: Callable[..., Base]) -> None:
    base = make_base("gemma2")
    with pytest.raises(BaseRefused, match="relative distance"):
        prove(replace(base, head=Head(base.head.weight_VC)))


def test_packed_documents_do_not_see_each_other(make_base: Callable[..., Base]) -> None:
    base = make_base("gemma3")
    tokens = torch.randint(97, (20,), generator=torch.Generator().manual_seed(3))
    positions = torch.cat([torch.arange(12), torch.arange(8)])
    together = base.hidden(tokens, positions, Layout((12, 8)))
    changed = base.hidden(torch.cat([tokens[:12].flip(0), tokens[12:]]), positions, Layout((12, 8)))
    assert torch.equal(together[12:], changed[12:])
    alone = base.hidden(tokens[12:], positions[12:], Layout((8,)))
    torch.testing.assert_close(together[12:], alone, rtol=1e-5, atol=1e-5)


def test_who_else_is_in_the_row_does_not_change_which_experts_a_token_goes_to(make_base: Callable[..., Base]) -> None:
    base = make_base("qwen3_moe")
    tokens = torch.randint(97, (20,), generator=torch.Generator().manual_seed(3))
    positions = torch.cat([torch.arange(12), torch.arange(8)])
    alone = base.hidden(tokens[12:], positions[12:], Layout((8,)))
    for others in (tokens[:12], tokens[:12].flip(0), tokens[:1].repeat(12)):
        together = base.hidden(torch.cat([others, tokens[12:]]), positions, Layout((12, 8)))
        torch.testing.assert_close(together[12:], alone, rtol=1e-5, atol=1e-5)


def test_router_logits_that_the_configuration_asks_for_change_nothing(make_base: Callable[..., Base]) -> None:
    """They are asked for where experts are to be evenly used, which no method here trains for."""
    tokens = torch.arange(9)
    base, asked = make_base("qwen3_moe"), make_base("qwen3_moe", output_router_logits=True, router_aux_loss_coef=0.1)
    assert asked.model.config.output_router_logits
    assert torch.equal(base.hidden(tokens, tokens, Layout((9,))), asked.hidden(tokens, tokens, Layout((9,))))


def test_the_head_takes_its_settings_from_the_configuration(make_model: Any) -> None:
    assert head_of(make_model("gemma2")).softcap == 3.0
    assert head_of(make_model("llama")).softcap is None
    model = make_model("llama")
    model.lm_head = torch.nn.Identity()
    with pytest.raises(BaseRefused, match="Identity, not a linear layer"):
        head_of(model)


def test_a_model_without_a_decoder_of_its_own_is_refused(make_model: Any) -> None:
    with pytest.raises(BaseRefused, match="no decoder"):
        wrap(make_model("llama").model)


def test_a_folder_is_loaded_and_its_pins_are_checked(make_model: Any, tmp_path: Path) -> None:
    make_model("llama").save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    expected = pins(tmp_path)
    check_pins(tmp_path, expected)
    base = load(tmp_path, dtype=torch.float32)
    assert (base.dtype, base.model.config._attn_implementation) == (torch.float32, "tunesmith")
    (tmp_path / "tokenizer.json").write_text('{"other": 1}')
    (tmp_path / "chat_template.jinja").write_text("other")
    with pytest.raises(BaseChanged, match="its template and tokenizer changed"):
        check_pins(tmp_path, expected)
    with pytest.raises(BaseChanged, match="cannot be read any more"):
        check_pins(tmp_path / "gone", expected)


def test_bf16_is_chosen_where_the_cpu_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for able, expected in (
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "avx2": True}, torch.float32),
        ({}, torch.float32),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert choose_dtype(cpu) == expected
    for capability, expected in (((9, 0), torch.bfloat16), ((7, 5), torch.float32)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, capability=capability: capability)
        assert choose_dtype(torch.device("cuda")) == expected


def test_the_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert loading.choose_device().type == expected
