from collections.abc import Callable
from typing import Any

import pytest
import torch

from tunesmith.lm.attention import Layout
from tunesmith.lm.last_layer import AskedOnly, counted_in_asked, trim
from tunesmith.lm.load import Base
from tunesmith.lm.lora import LoraModel, Span
from tunesmith.lm.score import Packed, score

MakeBase = Callable[..., Base]


def gradients(base: Base, *, trimmed: bool) -> tuple[torch.Tensor, list[Any]]:
    lora = LoraModel(base.model)
    assert not trimmed or trim(base.decoder, lora.route)
    adapters = [lora.fresh(seed=seed, rank=8) for seed in (1, 2)]
    for slot, adapter in enumerate(adapters):
        with torch.no_grad():
            for pair in adapter.pairs.values():
                pair.b_OR.normal_(0, 0.1, generator=torch.Generator().manual_seed(slot))
        lora.place(slot, adapter)
    tokens = torch.randint(97, (19,), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(length) for length in (6, 5, 8)])
    asked = torch.tensor([2, 3, 7, 9, 12, 17])
    packed = Packed(tokens, positions, (6, 5, 8), (Span(0, 0, 6), Span(1, 6, 19)), asked, tokens[asked + 1])
    logp = score(base, lora, packed).logp_N
    logp.sum().backward()
    return logp.detach(), [parameter.grad for adapter in adapters for parameter in adapter.parameters()]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gemma3"])
def test_scores_and_gradients_stay_the_same(make_base: MakeBase, family: str) -> None:
    whole, whole_grads = gradients(make_base(family), trimmed=False)
    cut, cut_grads = gradients(make_base(family), trimmed=True)
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(cut_grads, whole_grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_the_inner_module_sees_the_asked_tokens_only(make_base: MakeBase) -> None:
    base = make_base("llama")
    lora = LoraModel(base.model)
    trim(base.decoder, lora.route)
    seen: list[int] = []
    last: Any = base.decoder.layers[-1].mlp  # type: ignore[index,union-attr]  # the layers of a transformers decoder
    assert isinstance(last, AskedOnly)
    last.inner.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape[1]))
    tokens = torch.arange(8)
    score(base, lora, Packed(tokens, tokens, (8,), (), torch.tensor([1, 5]), tokens[:2]))
    base.hidden(tokens, tokens, Layout((8,)))
    assert seen == [2, 8]


def test_spans_are_counted_in_asked_tokens() -> None:
    asked = torch.tensor([1, 4, 5, 9])
    assert counted_in_asked((Span(3, 0, 5), Span(1, 5, 6), Span(2, 6, 8)), asked, 10) == (
        Span(3, 0, 2),
        Span(1, 2, 3),
        Span(2, 3, 3),
    )
    assert counted_in_asked((Span(3, 0, 10),), asked, 10) == (Span(3, 0, 4),)
    assert counted_in_asked((Span(3, 0, 5),), asked, 10) == (Span(3, 0, 2),)


def test_an_adapter_whose_tokens_are_not_asked_for_gets_no_gradient_of_the_last_mlp(make_base: MakeBase) -> None:
    base = make_base("llama")
    lora = LoraModel(base.model)
    trim(base.decoder, lora.route)
    silent = lora.fresh(seed=1, rank=8)
    lora.place(0, silent)
    tokens = torch.arange(6)
    packed = Packed(tokens, torch.tensor([0, 1, 2, 0, 1, 2]), (3, 3), (Span(0, 0, 3),), torch.tensor([4]), tokens[:1])
    score(base, lora, packed).logp_N.sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in silent.parameters())


@pytest.mark.parametrize("part", ["experts", "gate", "router"])
def test_a_mixture_of_experts_is_left_alone(part: str) -> None:
    layer, decoder = torch.nn.Module(), torch.nn.Module()
    layer.mlp = torch.nn.Module()
    layer.mlp.add_module(part, torch.nn.Identity())
    decoder.layers = torch.nn.ModuleList([layer])
    assert not trim(decoder, LoraModel(torch.nn.Sequential(torch.nn.Linear(2, 2))).route)
    assert not trim(torch.nn.Module(), LoraModel(torch.nn.Sequential(torch.nn.Linear(2, 2))).route)


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "glm4_moe", "phimoe"])
def test_a_real_mixture_of_experts_is_left_alone(make_base: MakeBase, family: str) -> None:
    base = make_base(family)
    assert not trim(base.decoder, LoraModel(base.model).route)
