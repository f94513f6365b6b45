from typing import Any

import pytest
import torch

from tunesmith.lm.attention import Layout, UnsupportedKnob, packed_attention, visible

LENGTHS = (7, 3, 9)


def heads(n_heads: int, seed: int, size: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, n_heads, sum(LENGTHS), size, generator=generator)


def written_out(
    q: Any, k: Any, v: Any, *, scale: float, window: int | None, softcap: float | None, sinks: Any
) -> torch.Tensor:
    """The definition, one token at a time, over all documents."""
    out = torch.zeros(1, sum(LENGTHS), q.shape[1], v.shape[3])
    starts = [sum(LENGTHS[:i]) for i in range(len(LENGTHS))]
    for start, length in zip(starts, LENGTHS, strict=True):
        for i in range(start, start + length):
            first = start if window is None else max(start, i - window + 1)
            for h in range(q.shape[1]):
                group = h * k.shape[1] // q.shape[1]
                scores = torch.stack([q[0, h, i] @ k[0, group, j] * scale for j in range(first, i + 1)])
                if softcap:
                    scores = torch.tanh(scores / softcap) * softcap
                if sinks is not None:
                    scores = torch.cat([scores, sinks[h : h + 1]])
                weights = torch.softmax(scores, 0)[: i + 1 - first]
                out[0, i, h] = weights @ v[0, group, first : i + 1]
    return out


@pytest.mark.parametrize("window", [None, 4, 100])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_every_knob_follows_its_definition(window: int | None, softcap: float | None, with_sinks: bool) -> None:
    q, k, v = heads(4, 1), heads(2, 2), heads(2, 3, size=5)
    sinks = torch.tensor([0.5, -1.0, 2.0, 0.0]) if with_sinks else None
    ours, weights = packed_attention(
        torch.nn.Identity(), q, k, v, None,
        tunesmith_layout=Layout(LENGTHS), scaling=0.7, sliding_window=window, softcap=softcap, s_aux=sinks,
    )  # fmt: skip
    expected = written_out(q, k, v, scale=0.7, window=window, softcap=softcap, sinks=sinks)
    assert weights is None
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_scaling_defaults_to_the_root_of_the_head_size() -> None:
    q, k, v = heads(4, 1), heads(2, 2), heads(2, 3)
    for softcap in (None, 3.0):
        given = packed_attention(
            torch.nn.Identity(), q, k, v, None, tunesmith_layout=Layout(LENGTHS), scaling=8**-0.5, softcap=softcap
        )  # fmt: skip
        left_out = packed_attention(torch.nn.Identity(), q, k, v, None, tunesmith_layout=Layout(LENGTHS), softcap=softcap)
        torch.testing.assert_close(given[0], left_out[0])


def test_what_is_without_effect_is_let_through() -> None:
    q = heads(2, 1)
    packed_attention(
        torch.nn.Identity(), q, q, q, None,
        tunesmith_layout=Layout(LENGTHS), dropout=0.0, position_ids=torch.arange(3), use_cache=False, position_bias=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"position_bias": torch.zeros(1)}, "position_bias"),
        ({"dropout": 0.1}, "dropout"),
        ({"is_causal": False}, "not causal"),
        ({"tunesmith_layout": None}, "layout"),
    ],
)
def test_a_knob_not_honoured_is_refused_by_name(knobs: dict[str, Any], told: str) -> None:
    q = heads(2, 1)
    with pytest.raises(UnsupportedKnob, match=told):
        packed_attention(torch.nn.Identity(), q, q, q, None, **({"tunesmith_layout": Layout(LENGTHS)} | knobs))


def test_a_mask_or_a_module_that_looks_ahead_is_refused() -> None:
    q = heads(2, 1)
    with pytest.raises(UnsupportedKnob, match="mask"):
        packed_attention(torch.nn.Identity(), q, q, q, torch.ones(1), tunesmith_layout=Layout(LENGTHS))
    ahead = torch.nn.Identity()
    ahead.is_causal = False  # type: ignore[assignment]  # what a bidirectional attention module carries
    with pytest.raises(UnsupportedKnob, match="not causal"):
        packed_attention(ahead, q, q, q, None, tunesmith_layout=Layout(LENGTHS))


def test_a_window_of_two_sees_itself_and_one_before() -> None:
    assert visible(3, 2, torch.device("cpu")).int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
