"""A pass by the forward of our own beside the same pass by transformers' modules: prompts, steps, adapters in one batch."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GraniteConfig, LlamaConfig, Qwen2Config

from parity.families import N_VOCAB, tiny_config, tiny_model
from tunesmith.lm.attention import Layout
from tunesmith.lm.last_layer import trim
from tunesmith.lm.load import Base, wrap
from tunesmith.lm.lora import LoraModel, Span
from tunesmith.sampler import attention, passes
from tunesmith.sampler.cache import Segment, SlotCache
from tunesmith.sampler.passes import Passes, portions

N_CONTEXT = 128
RANKS = {3: 8, 5: 16, 6: 8}
#: Segments of prompts, which slots they fill, and whose adapter leads them.
PROMPTS = [Segment(0, 0, 5), Segment(1, 0, 33), Segment(2, 0, 1), Segment(3, 0, 40), Segment(4, 0, 9)]
LEAD: list[int | None] = [5, None, 3, 5, 6]


def randomised(model: Any) -> Any:
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * (0.2 if parameter.dim() > 1 else 0.1))
    return model


def of_config(config: Any) -> Any:
    return randomised(AutoModelForCausalLM.from_config(config, attn_implementation="tunesmith"))


def shape_of(family: str) -> dict[str, Any]:
    config = tiny_config(family).to_dict()
    return {name: config[name] for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
            "num_attention_heads", "num_key_value_heads", "max_position_embeddings")}  # fmt: skip


def make(model: Any, *, adapters: bool = True) -> tuple[Base, LoraModel, Passes, SlotCache]:
    attention.register()
    base = wrap(model)
    lora = LoraModel(model)
    model.set_attn_implementation(attention.NAME)
    generator = torch.Generator().manual_seed(3)
    for slot, rank in RANKS.items() if adapters else ():
        adapter = lora.fresh(seed=slot, rank=rank, alpha=24)
        for pair in adapter.pairs.values():
            pair.b_OR.data.normal_(0, 0.2, generator=generator)
            pair.cast_b_OR.copy_(pair.b_OR.data)
        lora.place(slot, adapter)
    cache = SlotCache(2**30)
    return base, lora, Passes(base, lora, cache, context_length=N_CONTEXT), cache


@torch.inference_mode()
def walk(by: Passes, cache: SlotCache, lead: Sequence[int | None], *, ends_only: bool = True) -> list[torch.Tensor]:
    """Return what a pass over prompts says, and three steps of all rows after it."""
    generator = torch.Generator().manual_seed(1)
    cache.reserve(8, 64, 64)
    found: list[torch.Tensor] = []
    segments = tuple(PROMPTS)
    for _ in range(4):
        row = torch.randint(N_VOCAB, (sum(each.n_tokens for each in segments),), generator=generator).tolist()
        places = [each.start + i for each in segments for i in range(each.n_tokens)]
        found.append(by.run(row, places, segments, lead, ends_only=ends_only))
        segments = tuple(Segment(each.slot, each.start + each.n_tokens, 1) for each in segments)
    cache.release()
    return found


def by_modules(of: tuple[Base, LoraModel, Passes, SlotCache]) -> Passes:
    """Return passes over the same model that leave its modules alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "recognised", lambda _: False)
        other = Passes(of[0], of[1], of[3], context_length=N_CONTEXT)
    assert other.by_modules
    return other


OURS: dict[str, Any] = {
    "llama": lambda: tiny_model("llama"),
    "qwen3": lambda: tiny_model("qwen3"),
    "mistral, with a window": lambda: tiny_model("mistral"),
    "qwen2, with biases of some layers": lambda: of_config(Qwen2Config(**shape_of("qwen3"))),
    "llama 3, with its rotation": lambda: of_config(
        LlamaConfig(**shape_of("llama"), rope_parameters={
            "rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        })
    ),
}  # fmt: skip
THEIRS: dict[str, Any] = {
    **{name: lambda name=name: tiny_model(name) for name in ("gemma2", "gemma3", "qwen3_moe", "mixtral", "phimoe")},
    "granite": lambda: of_config(GraniteConfig(**shape_of("llama"), residual_multiplier=0.7)),
    "a rotation that depends on the length": lambda: of_config(
        LlamaConfig(**shape_of("llama"), rope_parameters={"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0})
    ),
    "another activation": lambda: of_config(LlamaConfig(**shape_of("llama"), hidden_act="gelu")),
}  # fmt: skip


@pytest.mark.parametrize("lead", [LEAD, [None] * 5, [5] * 5, [None, 6, 6, None, None]], ids=str)
@pytest.mark.parametrize("model", OURS)
def test_it_says_what_the_modules_say(model: str, lead: list[int | None]) -> None:
    of = make(OURS[model]())
    assert not of[2].by_modules
    modules = by_modules(of)
    for ends_only in (True, False):
        expected = walk(modules, of[3], lead, ends_only=ends_only)
        found = walk(of[2], of[3], lead, ends_only=ends_only)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


def test_in_bf16_it_lies_as_near_to_fp32_as_the_modules_do() -> None:
    of = make(tiny_model("qwen3").bfloat16())
    assert not of[2].by_modules
    exactly = make(tiny_model("qwen3").bfloat16().float())
    exact = walk(by_modules(exactly), exactly[3], LEAD)
    theirs, ours = walk(by_modules(of), of[3], LEAD), walk(of[2], of[3], LEAD)
    for right, other, one in zip(exact, theirs, ours, strict=True):
        assert (one.float() - right).norm() <= 1.3 * (other.float() - right).norm()


@pytest.mark.parametrize("model", THEIRS)
def test_what_computes_otherwise_stays_with_its_modules(model: str) -> None:
    assert make(THEIRS[model](), adapters=False)[2].by_modules


def test_a_decoder_that_differs_far_from_its_begin_alone_stays_with_its_modules() -> None:
    model = tiny_model("llama")
    rotary = model.model.rotary_emb
    forward = rotary.forward

    def turned_beyond(x: Any, position_ids: Any) -> Any:
        """As the queries of some architectures grow beyond the length that they were trained at."""
        cos, sin = forward(x, position_ids)
        growth = 1 + 0.5 * (position_ids > 100)[..., None]
        return cos * growth, sin * growth

    base, lora = wrap(model), LoraModel(model)
    attention.register()
    model.set_attn_implementation(attention.NAME)
    inner = model.model.layers[0].self_attn
    plain = inner.forward
    inner.forward = lambda *args, position_embeddings, position_ids, **more: plain(
        *args, position_embeddings=turned_beyond(position_embeddings[0], position_ids), position_ids=position_ids, **more
    )
    assert not Passes(base, lora, SlotCache(2**30), context_length=50).by_modules
    assert Passes(base, lora, SlotCache(2**30), context_length=N_CONTEXT).by_modules


def test_a_hooked_module_stays_what_it_is() -> None:
    model = tiny_model("llama")
    model.model.layers[1].register_forward_hook(lambda *_: None)
    assert make(model, adapters=False)[2].by_modules


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_joined_weights_are_the_modules_own_memory_and_are_trained_over(dtype: torch.dtype) -> None:
    def slopes(*, joined: bool) -> list[torch.Tensor]:
        base, lora, *_ = make(tiny_model("qwen3", dtype=dtype)) if joined else of
        adapter = lora.route.slots[5]
        lora.route.spans = (Span(5, 0, 12),)
        base.model.set_attn_implementation("tunesmith")  # type: ignore[operator]  # a transformers model
        hidden_TC = base.hidden(torch.arange(12), torch.arange(12), Layout((12,)))
        hidden_TC.float().square().sum().backward()
        return [parameter.grad for parameter in adapter.parameters() if parameter.grad is not None]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "recognised", lambda _: False)
        of = make(tiny_model("qwen3", dtype=dtype))
    expected, found = slopes(joined=False), slopes(joined=True)
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4 if dtype == torch.float32 else 0.05, atol=1e-4)
    base = make(tiny_model("qwen3", dtype=dtype))[0]
    layer = base.decoder.layers[0]
    storages = {
        name: getattr(layer.self_attn, name).base.weight.untyped_storage().data_ptr()
        for name in ("q_proj", "k_proj", "v_proj")
    }
    assert len(set(storages.values())) == 1
    n_bytes = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in base.model.parameters()}
    assert sum(n_bytes.values()) == sum(p.numel() * p.element_size() for p in base.model.parameters())


def test_the_last_layer_that_training_trims_is_seen_through() -> None:
    model = tiny_model("llama")
    base, lora = wrap(model), LoraModel(model)
    assert trim(base.decoder, lora.route)
    attention.register()
    model.set_attn_implementation(attention.NAME)
    assert not Passes(base, lora, SlotCache(2**30), context_length=N_CONTEXT).by_modules


def test_adapters_that_were_trained_are_read_anew_and_those_that_left_are_let_go() -> None:
    of = make(tiny_model("llama"))
    _, lora, ours, cache = of
    before = walk(ours, cache, [5] * 5)
    for pair in lora.route.slots[5].pairs.values():
        pair.b_OR.data.mul_(2)
    ours.refresh()
    after = walk(ours, cache, [5] * 5)
    assert not torch.allclose(before[-1], after[-1])
    torch.testing.assert_close(after[-1], walk(by_modules(of), cache, [5] * 5)[-1], rtol=1e-4, atol=2e-5)
    lora.place(5, lora.fresh(seed=9))
    torch.testing.assert_close(walk(ours, cache, [5] * 5)[-1], walk(ours, cache, [None] * 5)[-1], rtol=1e-4, atol=2e-5)
    assert ours._stacks._stacks
    for slot in RANKS:
        lora.take_out(slot)
    ours.tidy()
    assert not ours._stacks._stacks


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_the_heads(family: str, dtype: torch.dtype) -> None:
    base, _, ours, _ = make(tiny_model(family, dtype=dtype), adapters=False)
    hidden_SC = torch.randn(3, base.head.weight_VC.shape[1], dtype=dtype)
    with torch.inference_mode():
        found_SV, expected_SV = ours.logits(hidden_SC), base.head.logits(hidden_SC)
    assert found_SV.dtype == torch.float32
    assert found_SV.is_contiguous()
    torch.testing.assert_close(found_SV, expected_SV, rtol=1e-2, atol=1e-2 if dtype == torch.bfloat16 else 1e-5)


def test_prompts_are_cut_into_passes_of_whole_prompts() -> None:
    assert [*portions([5, 5, 5], 10)] == [slice(0, 2), slice(2, 3)]
    assert [*portions([30, 1, 30], 10)] == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert [*portions([7], 10)] == [slice(0, 1)]
