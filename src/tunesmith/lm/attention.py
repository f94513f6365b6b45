# pyright: basic
"""Our attention: packed documents side by side in one row of tokens, each attending causally to itself and to nothing else.

A document may be a tree: a stem that is computed once, and branches that each follow it and do not see one another (the
prompt of a pair of answers or of a group of samples, the system prompt of many chats).

It is registered with transformers under `NAME`, so every architecture that asks transformers' registry for its attention
uses it unchanged. Every knob that an architecture may hand over is honoured here (`scaling`, `sliding_window`, `softcap`,
`s_aux`) or refused by name: a knob ignored would be a model that trains wrongly and looks well.

Shapes: H query heads, K key heads (H is a multiple of K), T tokens of the row, L tokens of one document, M of it and the
stem before it, D, E head sizes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

NAME: Final = "tunesmith"

#: Keys below which a CPU's bf16 kernel is slower than its fp32 one, both ways together (5x at 32, 2.4x at 128, even at 256).
N_SHORT: Final = 256

#: What transformers hands to every attention and what does not change its result for packed training.
_WITHOUT_EFFECT: Final = frozenset(
    {
        "position_ids", "cache_position", "past_key_values", "use_cache", "output_attentions", "output_hidden_states",
        "output_router_logits", "return_dict", "num_items_in_batch", "position_embeddings", "labels",
    }
)  # fmt: skip


class UnsupportedKnob(ValueError):
    """The architecture hands over an attention setting that this engine does not honour."""


#: A document's length; of a tree the stem's and its branches' (whose tokens follow the stem's, one branch after another).
Piece = int | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a row of T tokens is cut into documents: their lengths, in order, summing to T."""

    lengths: tuple[Piece, ...]
    #: Called by each attention layer with its settings; for looking at an architecture, not for training.
    watch: Callable[[Any, dict[str, Any]], None] | None = None


def packed_attention(
    module: Any,
    query_1HTD: Tensor,
    key_1KTD: Tensor,
    value_1KTE: Tensor,
    attention_mask: Tensor | None,
    *,
    tunesmith_layout: Layout | None = None,
    **knobs: Any,
) -> tuple[Tensor, None]:
    """Attend within each document of `tunesmith_layout`; return the heads' outputs as (1, T, H, E).

    Raises:
        UnsupportedKnob: a setting that is not honoured, a mask, dropout, or a layer that is not causal.
    """
    scaling = knobs.pop("scaling", None)
    window = knobs.pop("sliding_window", None)
    softcap = knobs.pop("softcap", None)
    sinks_H = knobs.pop("s_aux", None)
    _refuse(module, attention_mask, knobs)
    if tunesmith_layout is None:
        raise UnsupportedKnob("packed attention was called without the layout of its documents")
    if tunesmith_layout.watch is not None:
        tunesmith_layout.watch(module, {"sliding_window": window, "softcap": softcap, "sinks": sinks_H is not None})
    documents = _documents(tunesmith_layout.lengths, query_1HTD, key_1KTD, value_1KTE)
    if softcap is None and sinks_H is None:
        outputs = [_fused(q, k, v, scaling, window) for q, k, v in documents]
    else:
        scale = scaling if scaling is not None else query_1HTD.shape[-1] ** -0.5
        outputs = [_explicit(q, k, v, scale, window, softcap=softcap, sinks_H=sinks_H) for q, k, v in documents]
    joined_1HTE = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)
    return joined_1HTE.transpose(1, 2).contiguous(), None


def _documents(
    lengths: tuple[Piece, ...], query_1HTD: Tensor, key_1KTD: Tensor, value_1KTE: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the queries, keys and values of each document, stem and branch; a branch has the stem's keys before its own."""
    flat = [length for piece in lengths for length in ((piece,) if isinstance(piece, int) else piece)]
    parts = zip(query_1HTD.split(flat, 2), key_1KTD.split(flat, 2), value_1KTE.split(flat, 2), strict=True)
    for piece in lengths:
        if isinstance(piece, int):
            yield next(parts)
            continue
        stem_q, stem_k, stem_v = next(parts)
        yield stem_q, stem_k, stem_v
        for _ in piece[1:]:
            q, k, v = next(parts)
            yield q, torch.cat([stem_k, k], 2), torch.cat([stem_v, v], 2)


def _refuse(module: Any, attention_mask: Tensor | None, knobs: dict[str, Any]) -> None:
    if knobs.pop("dropout", 0.0):
        raise UnsupportedKnob("attention dropout is not honoured: set attention_dropout to 0 in config.json")
    causal = knobs.pop("is_causal", None)
    if causal is False or (causal is None and getattr(module, "is_causal", True) is False):
        raise UnsupportedKnob("a layer attends to later tokens (it is not causal)")
    if attention_mask is not None:
        raise UnsupportedKnob("the architecture builds an attention mask of its own")
    for name, value in knobs.items():
        if value is not None and value is not False and name not in _WITHOUT_EFFECT:
            raise UnsupportedKnob(f"the attention setting `{name}` is not honoured")


def _fused(q_1HLD: Tensor, k_1KMD: Tensor, v_1KME: Tensor, scaling: float | None, window: int | None) -> Tensor:
    """One document by torch's fused kernels (on CUDA: flash attention where the head sizes allow it)."""
    n_tokens, n_seen = q_1HLD.shape[2], k_1KMD.shape[2]
    if n_seen < N_SHORT and q_1HLD.dtype == torch.bfloat16 and q_1HLD.device.type == "cpu":
        exact = _fused(q_1HLD.float(), k_1KMD.float(), v_1KME.float(), scaling, window)
        return exact.to(q_1HLD.dtype)
    grouped = q_1HLD.shape[1] != k_1KMD.shape[1]
    if n_tokens == n_seen and (window is None or n_tokens <= window):
        return F.scaled_dot_product_attention(
            q_1HLD, k_1KMD, v_1KME, is_causal=True, scale=scaling, enable_gqa=grouped
        )  # fmt: skip
    mask_LM = visible(n_tokens, window, q_1HLD.device, n_before=n_seen - n_tokens)
    return F.scaled_dot_product_attention(
        q_1HLD, k_1KMD, v_1KME, attn_mask=mask_LM, scale=scaling, enable_gqa=grouped
    )  # fmt: skip


def _explicit(
    q_1HLD: Tensor, k_1KMD: Tensor, v_1KME: Tensor, scale: float, window: int | None, *, softcap: float | None, sinks_H: Any
) -> Tensor:
    """One document by plain matrix products: for soft-capped scores and for sinks, which no fused kernel knows."""
    n_tokens, n_groups = q_1HLD.shape[2], q_1HLD.shape[1] // k_1KMD.shape[1]
    k_1HMD, v_1HME = k_1KMD.repeat_interleave(n_groups, 1), v_1KME.repeat_interleave(n_groups, 1)
    scores_1HLM = torch.matmul(q_1HLD, k_1HMD.transpose(2, 3)) * scale
    if softcap is not None:
        scores_1HLM = torch.tanh(scores_1HLM / softcap) * softcap
    mask_LM = visible(n_tokens, window, q_1HLD.device, n_before=k_1KMD.shape[2] - n_tokens)
    scores_1HLM = scores_1HLM.float().masked_fill(~mask_LM, float("-inf"))
    if sinks_H is None:
        weights_1HLM = torch.softmax(scores_1HLM, -1)
    else:
        sinks_1HL1 = sinks_H.float().reshape(1, -1, 1, 1).expand(1, -1, n_tokens, 1)
        weights_1HLM = torch.softmax(torch.cat([scores_1HLM, sinks_1HL1], -1), -1)[..., :-1]
    return torch.matmul(weights_1HLM.to(v_1HME.dtype), v_1HME)


def visible(n_tokens: int, window: int | None, device: torch.device, *, n_before: int = 0) -> Tensor:
    """Return the (L, M) booleans of who sees whom: oneself, and the `window - 1` tokens before (all of them when None).

    The first `n_before` of the M tokens that can be seen stand before the L.
    """
    row_M = torch.arange(n_before + n_tokens, device=device)
    back_LM = row_M[n_before:, None] - row_M[None, :]
    return (back_LM >= 0) & (back_LM < (window if window is not None else n_before + n_tokens))


def register() -> None:
    """Make the attention known to transformers; calling it again changes nothing.

    No mask function is registered beside it: transformers then builds none, and documents are kept apart by the layout.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # noqa: PLC0415 - two seconds, and not always needed

    ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)


#: Attentions by the names that modules of our own (`plain.py`) choose them by.
OURS: Final[dict[str, Callable[..., tuple[Tensor, None]]]] = {NAME: packed_attention}
