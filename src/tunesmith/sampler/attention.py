# pyright: basic
"""Attention over slots: the tokens of a packed row attend to their own slot's past, prompts and single steps alike.

It is registered with transformers as `NAME`, so every architecture can be sampled by its own modules. It honours the
settings that training's attention honours (`scaling`, `sliding_window`, `softcap`, `s_aux`); a base is taken only if that
one is.

Shapes: H query heads, K key heads, G queries of one key head, T tokens of the row, L of a segment, P positions, D, E head
sizes.
"""

import sys
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.lm.attention import OURS
from tunesmith.sampler.cache import Decoding, Segment, Slots, Store

NAME: Final = "tunesmith_slots"
_STRIDE: Final = 32


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
    """Make the attention known to modules of our own, and of transformers where those are in use; as often as one likes."""
    OURS[NAME] = slot_attention
    theirs = sys.modules.get("transformers.modeling_utils")
    if theirs is not None:
        theirs.ALL_ATTENTION_FUNCTIONS.register(NAME, slot_attention)


def slot_attention(
    module: Any,
    query_1HTD: Tensor,
    key_1KTD: Tensor,
    value_1KTE: Tensor,
    attention_mask: Tensor | None,
    *,
    tunesmith_slots: Slots,
    tunesmith_seen: dict[int, Knobs] | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Write the row's keys and values into their slots and attend; return the heads' outputs as (1, T, H, E).

    `tunesmith_seen` is filled with each layer's settings.
    """
    del attention_mask  # none is built for a registered attention without a mask function
    knobs = Knobs(
        settings.get("scaling"), settings.get("sliding_window"), settings.get("softcap"), settings.get("s_aux")
    )  # fmt: skip
    if tunesmith_seen is not None:
        tunesmith_seen[module.layer_idx] = knobs
    keys_TD, values_TE = key_1KTD[0].transpose(0, 1).flatten(1), value_1KTE[0].transpose(0, 1).flatten(1)
    rows_TF = torch.cat([keys_TD, values_TE], 1)
    store = tunesmith_slots.cache.store(module.layer_idx, key_1KTD.shape[1], keys_TD.shape[1], rows_TF)
    store.write(rows_TF, tunesmith_slots)
    return attend(query_1HTD[0].transpose(0, 1), store, tunesmith_slots, knobs)[None], None


def attend(query_THD: Tensor, store: Store, slots: Slots, knobs: Knobs) -> Tensor:
    """Return what the row's tokens draw from their slots, in which their own keys and values lie already: (T, H, E)."""
    if slots.decoding is not None:
        return step(query_THD, store, slots.decoding, knobs)
    outputs: list[Tensor] = []
    start = 0
    for segment in slots.segments:
        outputs.append(_prompt(query_THD[start:], store, segment, knobs))
        start += segment.n_tokens
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def step(query_SHD: Tensor, store: Store, decoding: Decoding, knobs: Knobs) -> Tensor:
    """One token of each slot at once: the queries of a key head stand where a fused kernel expects tokens; (S, H, E)."""
    rows = slice(decoding.first, decoding.first + decoding.n_rows)
    keys_SKPD, values_SKPE = store.keys_SKPD[rows, :, : decoding.n_past], store.values_SKPE[rows, :, : decoding.n_past]
    n_key_heads = keys_SKPD.shape[1]
    q_SKGD = query_SHD[: decoding.n_rows].unflatten(1, (n_key_heads, -1))
    mask_S11P = decoding.mask(knobs.window, query_SHD.dtype)
    if knobs.fused:
        output = F.scaled_dot_product_attention(q_SKGD, keys_SKPD, values_SKPE, attn_mask=mask_S11P, scale=knobs.scaling)
    else:
        sinks = None if knobs.sinks_H is None else knobs.sinks_H.float().view(1, n_key_heads, -1, 1)
        output = _explicit(q_SKGD, keys_SKPD, values_SKPE, mask_S11P, knobs, sinks)
    return output.flatten(1, 2)


def _prompt(query_THD: Tensor, store: Store, segment: Segment, knobs: Knobs) -> Tensor:
    """Several tokens of one slot, the first of the row, each seeing what lies before it: (L, H, E)."""
    n_past = segment.start + segment.n_tokens
    whole = segment.start == 0 and (knobs.window is None or n_past <= knobs.window)
    n_tokens = segment.n_tokens
    if knobs.fused and whole:
        # A CPU makes a program for each length, and keeps it: lengths are rounded up, since nobody sees what comes later.
        rounded = -(-n_tokens // _STRIDE) * _STRIDE
        if rounded <= min(query_THD.shape[0], store.rows_SPF.shape[1]):
            n_tokens = n_past = rounded
    keys_KPD, values_KPE = store.keys_SKPD[segment.slot, :, :n_past], store.values_SKPE[segment.slot, :, :n_past]
    n_key_heads = keys_KPD.shape[0]
    q_KGLD = query_THD[:n_tokens].transpose(0, 1).unflatten(0, (n_key_heads, -1))
    k_KGPD = keys_KPD[:, None].expand(-1, q_KGLD.shape[1], -1, -1)
    v_KGPE = values_KPE[:, None].expand(-1, q_KGLD.shape[1], -1, -1)
    if knobs.fused and whole:
        output = F.scaled_dot_product_attention(q_KGLD, k_KGPD, v_KGPE, is_causal=True, scale=knobs.scaling)
    else:
        row_L = torch.arange(segment.start, n_past, device=query_THD.device)
        back_LP = row_L[:, None] - torch.arange(n_past, device=query_THD.device)[None]
        seen_LP = (back_LP >= 0) & (back_LP < (knobs.window if knobs.window is not None else n_past + 1))
        if knobs.fused:
            output = F.scaled_dot_product_attention(q_KGLD, k_KGPD, v_KGPE, attn_mask=seen_LP, scale=knobs.scaling)
        else:
            mask_11LP = torch.zeros(seen_LP.shape, device=row_L.device).masked_fill_(~seen_LP, -torch.inf)[None, None]
            sinks = None if knobs.sinks_H is None else knobs.sinks_H.float().view(n_key_heads, -1, 1, 1)
            output = _explicit(q_KGLD, k_KGPD, v_KGPE, mask_11LP, knobs, sinks)
    return output.flatten(0, 1).transpose(0, 1)[: segment.n_tokens]


def _explicit(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, knobs: Knobs, sinks: Tensor | None) -> Tensor:
    """Attend by plain matrix products; the leading dimensions of all are the same, `sinks` has one column."""
    scale = knobs.scaling if knobs.scaling is not None else q.shape[-1] ** -0.5
    scores = torch.matmul(q, k.transpose(-1, -2)) * scale
    if knobs.softcap is not None:
        scores = torch.tanh(scores / knobs.softcap) * knobs.softcap
    scores = scores.float() if mask is None else scores.float() + mask
    if sinks is None:
        weights = torch.softmax(scores, -1)
    else:
        weights = torch.softmax(torch.cat([scores, sinks.expand(*scores.shape[:-1], 1)], -1), -1)[..., :-1]
    return torch.matmul(weights.to(v.dtype), v)
