from collections.abc import Callable
from typing import Any

import pytest
import torch

from tunesmith.lm.load import Base
from tunesmith.lm.lora import Adapter, LoraModel, Span, linear_layers, namesake
from tunesmith.lm.score import Packed, score

MakeBase = Callable[..., Base]


def noisy(lora: LoraModel, seed: int, *, rank: int = 8) -> Adapter:
    adapter = lora.fresh(seed=seed, rank=rank)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for pair in adapter.pairs.values():
            pair.b_OR.normal_(0, 0.05, generator=generator)
    adapter.sync()
    return adapter


def packed(lengths: tuple[int, ...], spans: tuple[Span, ...], seed: int = 0) -> Packed:
    n = sum(lengths)
    tokens = torch.randint(97, (n,), generator=torch.Generator().manual_seed(seed))
    positions = torch.cat([torch.arange(length) for length in lengths])
    asked = torch.arange(0, n - 1, 2)
    return Packed(tokens, positions, lengths, spans, asked, tokens[asked + 1])


def test_every_linear_layer_but_the_head_is_adapted(make_base: MakeBase) -> None:
    lora = LoraModel(make_base("llama").model)
    names = {path.rpartition(".")[2] for path in lora.layers}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert len(lora.layers) == 7 * 3
    assert not any(parameter.requires_grad for parameter in lora.model.parameters())


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no nn\.Linear"):
        LoraModel(torch.nn.Sequential(torch.nn.Embedding(3, 3)))


def test_a_fresh_adapter_changes_nothing_and_depends_on_its_seed_alone(make_base: MakeBase) -> None:
    base = make_base("qwen3")
    bare = score(base, LoraModel(make_base("qwen3").model), packed((9,), ())).logp_N
    lora = LoraModel(base.model)
    lora.place(3, lora.fresh(seed=5))
    torch.testing.assert_close(score(base, lora, packed((9,), (Span(3, 0, 9),))).logp_N, bare)
    torch.manual_seed(123)
    again, other = lora.fresh(seed=5).tensors(), lora.fresh(seed=6).tensors()
    assert all(torch.equal(tensor, again[name]) for name, tensor in lora.fresh(seed=5).tensors().items())
    name = next(name for name in again if name.endswith("lora_A"))
    assert not torch.equal(again[name], other[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_several_adapters_in_one_row_give_what_each_gives_alone(make_base: MakeBase, dtype: torch.dtype) -> None:
    base = make_base("llama", dtype=dtype)
    lora = LoraModel(base.model)
    adapters = [noisy(lora, seed, rank=rank) for seed, rank in ((1, 8), (2, 16))]
    for slot, adapter in enumerate(adapters):
        lora.place(slot, adapter)
    whole = packed((6, 5, 8), (Span(0, 0, 6), Span(1, 6, 11)))
    scores = score(base, lora, whole).logp_N
    cuts = [(0, 6, (Span(0, 0, 6),)), (6, 11, (Span(1, 0, 5),)), (11, 19, ())]
    for start, stop, spans in cuts:
        mine = (whole.asked_N >= start) & (whole.asked_N < stop)
        alone = Packed(
            whole.tokens_T[start:stop], whole.positions_T[start:stop], (stop - start,), spans,
            whole.asked_N[mine] - start, whole.targets_N[mine],
        )  # fmt: skip
        tolerance = 1e-5 if dtype == torch.float32 else 0.1
        torch.testing.assert_close(scores[mine], score(base, lora, alone).logp_N, rtol=tolerance, atol=tolerance)


def test_gradients_are_those_of_autograd_on_the_formula(make_base: MakeBase) -> None:
    base = make_base("qwen3")
    lora = LoraModel(base.model)
    lora.place(0, noisy(lora, 1))
    adapter = lora.route.slots[0]
    path, layer = next(iter(lora.layers.items()))
    x = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    slope = torch.randn(1, 6, layer.base.out_features, generator=torch.Generator().manual_seed(1))
    lora.route.spans = (Span(0, 1, 5),)
    layer(x).mul(slope).sum().backward()
    pair = adapter.pairs[path]
    ours = [x.grad, pair.a_RI.grad, pair.b_OR.grad]

    y = x.detach().clone().requires_grad_()
    a, b = pair.a_RI.detach().clone().requires_grad_(), pair.b_OR.detach().clone().requires_grad_()
    inside = torch.zeros(6, 1)
    inside[1:5] = 1
    formula = torch.nn.functional.linear(y, layer.base.weight) + adapter.scale * inside * (y @ a.t() @ b.t())
    formula.mul(slope).sum().backward()
    for mine, theirs in zip(ours, (y.grad, a.grad, b.grad), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_copies_follow_their_factors(make_base: MakeBase) -> None:
    lora = LoraModel(make_base("llama", dtype=torch.bfloat16).model)
    adapter = lora.fresh(seed=1)
    pair = next(iter(adapter.pairs.values()))
    with torch.no_grad():
        pair.b_OR.fill_(0.5)
    assert not pair.cast_b_OR.any()
    adapter.sync()
    assert pair.cast_b_OR.dtype == torch.bfloat16
    assert torch.equal(pair.cast_b_OR.float(), pair.b_OR.detach())
    assert len(adapter.parameters()) == 2 * len(adapter.pairs)


def test_an_adapter_of_another_shape_is_refused(make_base: MakeBase) -> None:
    lora = LoraModel(make_base("llama").model)
    tensors: dict[str, Any] = lora.fresh(seed=1, rank=8).tensors()
    with pytest.raises(ValueError, match="factors"):
        lora.adapter(tensors, rank=16, alpha=32)
    tensors.pop(next(iter(tensors)))
    with pytest.raises(ValueError, match="1 tensors differ"):
        lora.adapter(tensors, rank=8, alpha=32)


def test_a_slot_can_be_emptied(make_base: MakeBase) -> None:
    base = make_base("llama")
    lora = LoraModel(base.model)
    lora.place(0, lora.fresh(seed=1))
    lora.take_out(0)
    with pytest.raises(KeyError):
        score(base, lora, packed((4,), (Span(0, 0, 4),)))
    assert lora.route.spans == ()


def test_the_head_is_left_out_even_when_it_is_a_linear_layer(make_model: Callable[..., Any]) -> None:
    model = make_model("llama")
    assert "lm_head" not in {path for path, _ in linear_layers(model)}


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "glm4_moe", "phimoe"])
def test_of_a_mixture_of_experts_attention_alone_is_adapted(make_model: Callable[..., Any], family: str) -> None:
    kinds = {path.rpartition(".")[2] for path, _ in linear_layers(make_model(family))}
    assert kinds == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_a_gate_of_attention_is_left_out_where_peft_would_take_it_for_an_expert() -> None:
    def layer() -> torch.nn.Module:
        made = torch.nn.Module()
        made.self_attn = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(4, 4), "gate_proj": torch.nn.Linear(4, 4)})
        made.mlp = torch.nn.ModuleDict({"up_proj": torch.nn.Linear(4, 4)})
        return made

    model = torch.nn.ModuleList([layer()])
    assert {path for path, _ in linear_layers(model)} == {"0.self_attn.q_proj", "0.self_attn.gate_proj", "0.mlp.up_proj"}
    assert namesake(model) is None
    model[0].experts = torch.nn.Module()
    assert {path for path, _ in linear_layers(model)} == {"0.self_attn.q_proj"}
    model[0].q_proj = torch.nn.Linear(4, 4)
    assert namesake(model) == "0.q_proj"
