"""The forward pass of our own gives the modules' hidden states and gradients, and is taken only where it does."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tunesmith.lm.attention import Layout
from tunesmith.lm.forward import Forward, own_forward
from tunesmith.lm.last_layer import trim
from tunesmith.lm.load import Base, wrap
from tunesmith.lm.lora import Adapter, LoraModel, Span

MakeBase = Callable[..., Base]

#: A tree of three, a plain document, a tree of two; the spans of two adapters, with a gap between them.
LENGTHS = ((9, 4, 6), 11, (3, 2))
POSITIONS = torch.cat([torch.arange(start, start + n) for start, n in ((0, 9), (9, 4), (9, 6), (0, 11), (0, 3), (3, 2))])
ASKED = torch.tensor([3, 10, 12, 14, 18, 20, 25, 31, 33])
SPANS = (Span(0, 0, 19), Span(1, 30, 35))
N_TOKENS = len(POSITIONS)


def prepared(base: Base) -> tuple[LoraModel, list[Adapter]]:
    lora = LoraModel(base.model)
    adapters = [lora.fresh(seed=seed, rank=rank) for seed, rank in ((1, 8), (2, 16))]
    for slot, adapter in enumerate(adapters):
        with torch.no_grad():
            for pair in adapter.pairs.values():
                pair.b_OR.normal_(0, 0.05, generator=torch.Generator().manual_seed(slot))
        adapter.sync()
        lora.place(slot, adapter)
    return lora, adapters


def gradients(adapters: list[Adapter], hidden: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    for adapter in adapters:
        for factor in adapter.parameters():
            factor.grad = None
    hidden_NC = hidden()
    (hidden_NC.float() * torch.randn(hidden_NC.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    slopes = [factor.grad for adapter in adapters for factor in adapter.parameters()]
    assert all(slope is not None for slope in slopes)
    return hidden_NC.detach().float(), torch.cat([slope.reshape(-1) for slope in slopes if slope is not None])


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hidden_states_and_gradients_are_the_modules(make_base: MakeBase, family: str, dtype: torch.dtype) -> None:
    base = make_base(family, dtype=dtype, spread=0.3 if dtype == torch.float32 else 0.05)
    lora, adapters = prepared(base)
    trim(base.decoder, lora.route)
    tokens = torch.randint(97, (N_TOKENS,), generator=torch.Generator().manual_seed(2))

    def modules() -> torch.Tensor:
        lora.route.spans = SPANS
        try:
            return base.hidden(tokens, POSITIONS, Layout(LENGTHS)).index_select(0, ASKED)
        finally:
            lora.route.spans = ()

    theirs = gradients(adapters, modules)
    own = own_forward(base, lora)
    assert own is not None
    ours = gradients(adapters, lambda: own(tokens, POSITIONS, LENGTHS, SPANS, ASKED))
    for mine, its in zip(ours, theirs, strict=True):
        assert distance(mine, its) <= (1e-5 if dtype == torch.float32 else 0.06)


def test_the_modules_weights_become_views_and_nothing_is_held_twice(make_base: MakeBase) -> None:
    base = make_base("qwen3")
    lora, _ = prepared(base)
    before = {path: layer.base.weight.clone() for path, layer in lora.layers.items()}
    assert own_forward(base, lora) is own_forward(base, lora) is not None
    weights = {path: layer.base.weight for path, layer in lora.layers.items()}
    assert all(weight.equal(before[path]) for path, weight in weights.items())
    q, v = (weights[f"model.layers.0.self_attn.{name}_proj"] for name in "qv")
    assert q.untyped_storage().data_ptr() == v.untyped_storage().data_ptr()


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "qwen3_moe", "phimoe"])
def test_other_forms_keep_their_modules(make_base: MakeBase, family: str) -> None:
    base = make_base(family)
    assert own_forward(base, LoraModel(base.model)) is None


def test_documents_longer_than_a_window_keep_the_modules(make_base: MakeBase, make_model: Callable[..., Any]) -> None:
    narrow = make_base("mistral")
    assert own_forward(narrow, LoraModel(narrow.model)) is None, "its window is 7"
    model = make_model("mistral")
    model.config.sliding_window = 50
    base = wrap(model)
    own = own_forward(base, LoraModel(base.model))
    assert own is not None
    assert own.takes((50, (30, 20)))
    assert not own.takes((3, 51))
    assert not own.takes(((30, 21, 3),))


def test_a_decoder_that_computes_otherwise_than_it_looks_keeps_its_modules(
    make_base: MakeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base("llama")
    layer: Any = base.decoder.layers[0]  # type: ignore[index]  # the layers of a transformers decoder
    plain = type(layer).forward
    monkeypatch.setattr(type(layer), "forward", lambda self, *given, **named: plain(self, *given, **named) * 1.01)
    assert own_forward(base, LoraModel(base.model)) is None


def test_a_bare_base_is_computed_without_adapters(make_base: MakeBase) -> None:
    base = make_base("qwen3")
    lora, _ = prepared(base)
    tokens = torch.arange(N_TOKENS)
    own = own_forward(base, lora)
    assert isinstance(own, Forward)
    with torch.no_grad():
        theirs = base.hidden(tokens, POSITIONS, Layout(LENGTHS)).index_select(0, ASKED)
        assert distance(own(tokens, POSITIONS, LENGTHS, (), ASKED), theirs) <= 1e-5
