"""Sizes of products are few, and what lies in other columns never gets into a column."""

import pytest
import torch
from torch import nn

from tunesmith.lm.lora import Adapter, LoraLinear, LoraModel, Route, Span
from tunesmith.sampler.products import Product, Stacks, few, multiply, n_columns

BOTH = [torch.float32, torch.bfloat16]


def test_in_bf16_few_sizes_are_computed() -> None:
    weight = torch.empty(1, dtype=torch.bfloat16)
    sizes = {n_columns(n, weight) for n in range(1, 4097)}
    assert len(sizes) < 32
    assert all(n <= n_columns(n, weight) <= max(2 * n - 1, 1.5 * n) for n in range(1, 4097))
    assert n_columns(1001, torch.empty(1)) == 1001


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("n", [1, 7, 100])
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_is_what_its_layers_say(dtype: torch.dtype, n: int, bias: bool) -> None:
    torch.manual_seed(0)
    linears = [nn.Linear(24, size, bias=bias, dtype=dtype) for size in (16, 8)]
    x_TI = torch.randn(n, 24, dtype=dtype)
    with torch.no_grad():
        expected = torch.cat([linear(x_TI) for linear in linears], 1)
        product = Product(*(LoraLinear(f"{i}", linear, Route()) for i, linear in enumerate(linears)))
        again = torch.cat([linear(x_TI) for linear in linears], 1)
        close = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(product(few(x_TI), None).t(), expected, **close)
        torch.testing.assert_close(again, expected, **close)
        torch.testing.assert_close(multiply(product.weight_OI, few(x_TI), product.bias_O).t(), expected, **close)


def two() -> tuple[Product, dict[int, Adapter]]:
    torch.manual_seed(0)
    model = nn.Module()
    model.first, model.second = nn.Linear(24, 16), nn.Linear(24, 8)
    lora = LoraModel(model)
    for slot, rank in ((2, 8), (7, 16)):
        lora.place(slot, lora.fresh(seed=slot, rank=rank))
        for pair in lora.route.slots[slot].pairs.values():
            pair.b_OR.data.normal_()
    return Product(*lora.layers.values()), lora.route.slots


def added(product: Product, adapter: Adapter, x_IT: torch.Tensor) -> torch.Tensor:
    parts = [pair.b_OR @ (pair.a_RI @ x_IT) for pair in adapter.pairs.values()]
    return torch.cat(parts).detach() * adapter.scale


def test_each_column_has_its_own_adapters_correction_and_no_other() -> None:
    product, resident = two()
    x_IT = torch.randn(24, 5)
    for columns in ([2, None, 7, 7, 2], [7] * 5, [None, None, 2, None, None]):
        corrections = Stacks(resident).by_column(columns)
        assert corrections is not None
        y_OT = torch.zeros(24, 5)
        corrections.add(product, x_IT, y_OT)
        for place, slot in enumerate(columns):
            expected = torch.zeros(24) if slot is None else added(product, resident[slot], x_IT)[:, place]
            torch.testing.assert_close(y_OT[:, place], expected, rtol=1e-4, atol=1e-5)
    assert Stacks(resident).by_column([None] * 3) is None


def test_a_column_that_is_not_finite_spoils_no_other() -> None:
    product, resident = two()
    x_IT = torch.randn(24, 4)
    x_IT[:, 1] = torch.nan
    y_OT = torch.zeros(24, 4)
    corrections = Stacks(resident).by_column([2, 7, None, 2])
    assert corrections is not None
    corrections.add(product, x_IT, y_OT)
    assert y_OT[:, [0, 2, 3]].isfinite().all()
    assert not y_OT[:, 1].isfinite().any()


def test_spans_are_added_where_they_are() -> None:
    product, resident = two()
    x_IT = torch.randn(24, 200)
    spans = [Span(7, 3, 90), Span(2, 90, 91), Span(7, 150, 200)]
    y_OT = torch.zeros(24, 200)
    corrections = Stacks(resident).by_span(spans)
    assert corrections is not None
    corrections.add(product, x_IT, y_OT)
    expected = torch.zeros(24, 200)
    for span in spans:
        expected[:, span.start : span.stop] = added(product, resident[span.adapter], x_IT[:, span.start : span.stop])
    torch.testing.assert_close(y_OT, expected, rtol=1e-4, atol=1e-5)
    assert Stacks(resident).by_span([]) is None


def test_a_stretch_after_steps_of_several_adapters_uses_its_own_alone() -> None:
    product, resident = two()
    stacks = Stacks(resident)
    x_IT = torch.randn(24, 80)
    assert stacks.by_column([2, 7]) is not None
    corrections = stacks.by_span([Span(2, 0, 80)])
    assert corrections is not None
    y_OT = torch.zeros(24, 80)
    corrections.add(product, x_IT, y_OT)
    torch.testing.assert_close(y_OT, added(product, resident[2], x_IT), rtol=1e-4, atol=1e-5)
