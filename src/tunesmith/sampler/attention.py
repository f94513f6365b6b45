# pyright: basic
"""Attention over slots: the tokens of a packed row attend to their own slot's past, prompts and single steps alike.

It is registered with transformers as `NAME`, so every architecture is sampled by its own modules. It honours the settings
that training's attention honours (`scaling`, `sliding_window`, `softcap`, `s_aux`); a base is taken only if that one is.

Shapes: H query heads, K key heads, G queries of one key head, T tokens of the row, L of a segment, P positions, D, E head
sizes.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tunesmith.sampler.cache import Segment, Slots

NAME: Final = "tunesmith_slots"


@dataclass(frozen=True, slots=True)
class Knobs:
    """The settings of an architecture's attention."""

    scaling: float | None
    window: int | None
    softcap: float | None
    sinks_H: Any

    @property
    def fused(self) -> bool:
        """Whether torch's fused kernels know all of them."""
        return self.softcap is None and self.sinks_H is None


def register() -> None:
    """Make the attention known to transformers; calling it again changes nothing."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, slot_attention)


def slot_attention(
    module: Any,
    query_1HTD: Tensor,
    key_1KTD: Tensor,
    value_1KTE: Tensor,
    attention_mask: Tensor | None,
    *,
    tunesmith_slots: Slots,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Write the row's keys and values into their slots and attend; return the heads' outputs as (1, T, H, E)."""
    del attention_mask  # none is built for a registered attention without a mask function
    knobs = Knobs(
        settings.get("scaling"), settings.get("sliding_window"), settings.get("softcap"), settings.get("s_aux")
    )  # fmt: skip
    keys_SKPD, values_SKPE = tunesmith_slots.cache.layer(module.layer_idx, key_1KTD, value_1KTE)
    step = tunesmith_slots.decoding
    if step is not None:
        n_rows = step.rows_S.shape[0]
        keys_SKPD[step.rows_S, :, step.positions_S] = key_1KTD[0].transpose(0, 1)
        values_SKPE[step.rows_S, :, step.positions_S] = value_1KTE[0].transpose(0, 1)
        past = keys_SKPD[:n_rows, :, : step.n_past], values_SKPE[:n_rows, :, : step.n_past]
        return _step(query_1HTD, *past, step.mask(knobs.window), knobs)[None], None
    outputs: list[Tensor] = []
    start = 0
    for segment in tunesmith_slots.segments:
        stop = start + segment.n_tokens
        end = segment.start + segment.n_tokens
        keys_SKPD[segment.slot, :, segment.start : end] = key_1KTD[0, :, start:stop]
        values_SKPE[segment.slot, :, segment.start : end] = value_1KTE[0, :, start:stop]
        past = keys_SKPD[segment.slot, :, :end], values_SKPE[segment.slot, :, :end]
        outputs.append(_prompt(query_1HTD[0, :, start:stop], *past, segment, knobs))
        start = stop
    return torch.cat(outputs, 1).transpose(0, 1)[None], None


def _step(query_1HTD: Tensor, keys_SKPD: Tensor, values_SKPE: Tensor, mask_S11P: Tensor, knobs: Knobs) -> Tensor:
    """One token of each slot at once: the queries of a key head stand where a fused kernel expects tokens; (S, H, E)."""
    n_rows, n_key_heads = keys_SKPD.shape[:2]
    q_SKGD = query_1HTD[0].transpose(0, 1).reshape(n_rows, n_key_heads, -1, query_1HTD.shape[3])
    if knobs.fused:
        output = F.scaled_dot_product_attention(q_SKGD, keys_SKPD, values_SKPE, attn_mask=mask_S11P, scale=knobs.scaling)
    else:
        sinks = None if knobs.sinks_H is None else knobs.sinks_H.float().view(1, n_key_heads, -1, 1)
        output = _explicit(q_SKGD, keys_SKPD, values_SKPE, mask_S11P, knobs, sinks)
    return output.reshape(n_rows, -1, output.shape[-1])


def _prompt(query_HLD: Tensor, keys_KPD: Tensor, values_KPE: Tensor, segment: Segment, knobs: Knobs) -> Tensor:
    """Several tokens of one slot, each seeing what lies before it: (H, L, E)."""
    n_groups = query_HLD.shape[0] // keys_KPD.shape[0]
    k_HPD, v_HPE = keys_KPD.repeat_interleave(n_groups, 0), values_KPE.repeat_interleave(n_groups, 0)
    n_past = keys_KPD.shape[1]
    whole = segment.start == 0 and (knobs.window is None or n_past <= knobs.window)
    if knobs.fused and whole:
        return F.scaled_dot_product_attention(
            query_HLD[None], k_HPD[None], v_HPE[None], is_causal=True, scale=knobs.scaling
        )[0]
    row_L = torch.arange(segment.start, n_past, device=query_HLD.device)
    back_LP = row_L[:, None] - torch.arange(n_past, device=query_HLD.device)[None]
    mask_LP = (back_LP >= 0) & (back_LP < (knobs.window if knobs.window is not None else n_past + 1))
    if knobs.fused:
        return F.scaled_dot_product_attention(
            query_HLD[None], k_HPD[None], v_HPE[None], attn_mask=mask_LP, scale=knobs.scaling
        )[0]
    sinks = None if knobs.sinks_H is None else knobs.sinks_H.float().view(1, -1, 1, 1).expand(1, -1, row_L.shape[0], 1)
    return _explicit(query_HLD[None], k_HPD[None], v_HPE[None], mask_LP[None, None], knobs, sinks)[0]


def _explicit(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, knobs: Knobs, sinks: Tensor | None) -> Tensor:
    """Attend by plain matrix products; the leading dimensions of all are the same, `sinks` has one column."""
    scale = knobs.scaling if knobs.scaling is not None else q.shape[-1] ** -0.5
    scores = torch.matmul(q, k.transpose(-1, -2)) * scale
    if knobs.softcap is not None:
        scores = torch.tanh(scores / knobs.softcap) * knobs.softcap
    scores = scores.float().masked_fill(~mask, float("-inf"))
    if sinks is None:
        weights = torch.softmax(scores, -1)
    else:
        weights = torch.softmax(torch.cat([scores, sinks.expand(*scores.shape[:-1], 1)], -1), -1)[..., :-1]
    return torch.matmul(weights.to(v.dtype), v)
