# pyright: basic
"""Causal attention of packed documents by torch's CPU kernels, forward and back, without autograd in between.

Shapes: H query heads, K key heads, T tokens of the row, L tokens of one part of it (document, stem or branch), M of it and
what it sees before it, D head size.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from tunesmith.lm.attention import N_SHORT, Piece

#: A CPU compiles its bf16 kernels for every length: so many tokens apart.
_STRIDE: Final = 64
#: Keys below which the way back is faster in fp32 (a quarter at 300 to 600), from what the way forward computed in bf16.
_N_EXACT_BACK: Final = 704
_forward: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_backward: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens `start` to `stop` of a row, which see the tokens from `stem` to `stem_stop`, and themselves causally."""

    start: int
    stop: int
    stem: int
    stem_stop: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What the way back needs of a part."""

    part: Part
    out_1HLD: Tensor
    lse_1HL: Tensor


def parts(lengths: tuple[Piece, ...]) -> list[Part]:
    """Cut a row into what attends by itself."""
    found: list[Part] = []
    start = 0
    for piece in lengths:
        stem, *branches = (piece,) if isinstance(piece, int) else piece
        found.append(Part(start, start + stem, start, start))
        at = start + stem
        for branch in branches:
            found.append(Part(at, at + branch, start, start + stem))
            at += branch
        start = at
    return found


def attend(
    q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, lengths: tuple[Piece, ...], scale: float
) -> tuple[Tensor, list[Kept]]:
    """Return the heads' outputs (T, H, D), and what `attend_back` needs."""
    out_THD = q_THD.new_empty(q_THD.shape)
    kept: list[Kept] = []
    for part in parts(lengths):
        q, k, v, mask = _inputs(q_THD, k_TKD, v_TKD, part)
        out, lse = _forward(q, k, v, 0.0, mask is None, attn_mask=mask, scale=scale)
        kept.append(Kept(part, out, lse))
        out_THD[part.start : part.stop] = out[0, :, : part.stop - part.start].transpose(0, 1)
    return out_THD, kept


def attend_back(
    grad_THD: Tensor, qkv: tuple[Tensor, Tensor, Tensor], kept: list[Kept], scale: float, slopes: tuple[Tensor, ...]
) -> None:
    """Write the gradients of queries, keys and values into `slopes`."""
    q_THD, k_TKD, v_TKD = qkv
    dq_THD, dk_TKD, dv_TKD = slopes
    for each in kept:
        part = each.part
        n_stem, n = part.stem_stop - part.stem, part.stop - part.start
        q, k, v, mask = _inputs(q_THD, k_TKD, v_TKD, part, n_exact=_N_EXACT_BACK)
        grad = _padded(grad_THD[part.start : part.stop], q)
        out, lse = each.out_1HLD[:, :, : q.shape[2]].to(q.dtype), each.lse_1HL[:, :, : q.shape[2]]
        dq, dk, dv = _backward(grad, q, k, v, out, lse, 0.0, mask is None, attn_mask=mask, scale=scale)
        dq_THD[part.start : part.stop] = dq[0, :, :n].transpose(0, 1)
        for whole, slope in ((dk_TKD, dk), (dv_TKD, dv)):
            whole[part.start : part.stop] = slope[0, :, n_stem : n_stem + n].transpose(0, 1)
            if n_stem:
                whole[part.stem : part.stem_stop] += slope[0, :, :n_stem].transpose(0, 1)


def _inputs(
    q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, part: Part, *, n_exact: int = N_SHORT
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return queries, keys and values of a part as the kernels take them, and a mask where it sees a stem.

    With fewer keys than `n_exact` they are in fp32.
    """
    own, stem = slice(part.start, part.stop), slice(part.stem, part.stem_stop)
    n, n_stem = part.stop - part.start, part.stem_stop - part.stem
    n_seen, dtype = n + n_stem, q_THD.dtype
    stride = 1
    if dtype == torch.bfloat16:
        dtype, stride = (torch.float32, 1) if n_seen < n_exact else (dtype, _STRIDE)

    def laid(*rows: Tensor) -> Tensor:
        length = sum(map(len, rows))
        made = rows[0].new_zeros(length + -length % stride, *rows[0].shape[1:], dtype=dtype)
        at = 0
        for each in rows:
            made[at : at + len(each)] = each
            at += len(each)
        return made.transpose(0, 1)[None]

    if not n_stem:
        return laid(q_THD[own]), laid(k_TKD[own]), laid(v_TKD[own]), None
    q = laid(q_THD[own])
    k, v = laid(k_TKD[stem], k_TKD[own]), laid(v_TKD[stem], v_TKD[own])
    place_M = torch.arange(k.shape[2])
    seen_LM = place_M[None] <= n_stem + torch.arange(q.shape[2])[:, None]
    mask_LM = torch.zeros(seen_LM.shape, dtype=dtype).masked_fill_(~seen_LM, float("-inf"))
    return q, k, v, mask_LM[None, None]


def _padded(rows_LHD: Tensor, like_1HLD: Tensor) -> Tensor:
    made = torch.zeros_like(like_1HLD)
    made[0, :, : len(rows_LHD)] = rows_LHD.transpose(0, 1)
    return made
