# pyright: basic
"""Causal attention of packed documents by torch's CPU kernels, forward and back, without autograd in between.

Shapes: H query heads, K key heads, T tokens of the row, L tokens of one part of it (document, stem or branch), M of it and
what it sees before it, D head size.
"""

from dataclasses import dataclass, replace
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
    """Tokens `start` to `stop` of a row, which see the tokens from `stem` to `stem_stop`, and themselves causally.

    Outputs are asked for from `first` on.
    """

    start: int
    stop: int
    stem: int
    stem_stop: int
    first: int

    @property
    def n_before(self) -> int:
        """Tokens that the first query sees before itself."""
        return self.stem_stop - self.stem + self.first - self.start


@dataclass(frozen=True, slots=True)
class Kept:
    """What the way back needs of a part."""

    part: Part
    out_1HLD: Tensor
    lse_1HL: Tensor


def parts(lengths: tuple[Piece, ...], asked_N: Tensor | None = None) -> list[Part]:
    """Cut a row into what attends by itself; what has no asked token is left out."""
    found: list[Part] = []
    start = 0
    for piece in lengths:
        stem, *branches = (piece,) if isinstance(piece, int) else piece
        found.append(Part(start, start + stem, start, start, start))
        at = start + stem
        for branch in branches:
            found.append(Part(at, at + branch, start, start + stem, at))
            at += branch
        start = at
    if asked_N is None:
        return found
    nexts = torch.searchsorted(asked_N, torch.tensor([part.start for part in found])).tolist()
    firsts = [int(asked_N[place]) if place < len(asked_N) else start for place in nexts]
    return [replace(part, first=first) for part, first in zip(found, firsts, strict=True) if first < part.stop]


def attend(
    q_THD: Tensor,
    k_TKD: Tensor,
    v_TKD: Tensor,
    lengths: tuple[Piece, ...],
    scale: float,
    asked_N: Tensor | None = None,
) -> tuple[Tensor, list[Kept]]:
    """Return the heads' outputs (T, H, D), and what `attend_back` needs; only those of asked tokens need to be right."""
    out_THD = q_THD.new_empty(q_THD.shape)
    kept: list[Kept] = []
    for part in parts(lengths, asked_N):
        q, k, v, mask = _inputs(q_THD, k_TKD, v_TKD, part)
        out, lse = _forward(q, k, v, 0.0, mask is None, attn_mask=mask, scale=scale)
        kept.append(Kept(part, out, lse))
        out_THD[part.first : part.stop] = out[0, :, : part.stop - part.first].transpose(0, 1)
    return out_THD, kept


def attend_back(
    grad_THD: Tensor, qkv: tuple[Tensor, Tensor, Tensor], kept: list[Kept], scale: float, slopes: tuple[Tensor, ...]
) -> None:
    """Write the gradients of queries, keys and values into `slopes`, which are zero where a part asks for less than all."""
    q_THD, k_TKD, v_TKD = qkv
    dq_THD, dk_TKD, dv_TKD = slopes
    for each in kept:
        part = each.part
        n_stem, n, n_asked = part.stem_stop - part.stem, part.stop - part.start, part.stop - part.first
        q, k, v, mask = _inputs(q_THD, k_TKD, v_TKD, part, n_exact=_N_EXACT_BACK)
        grad = _padded(grad_THD[part.first : part.stop], q)
        out, lse = each.out_1HLD[:, :, : q.shape[2]].to(q.dtype), each.lse_1HL[:, :, : q.shape[2]]
        dq, dk, dv = _backward(grad, q, k, v, out, lse, 0.0, mask is None, attn_mask=mask, scale=scale)
        dq_THD[part.first : part.stop] = dq[0, :, :n_asked].transpose(0, 1)
        for whole, slope in ((dk_TKD, dk), (dv_TKD, dv)):
            whole[part.start : part.stop] = slope[0, :, n_stem : n_stem + n].transpose(0, 1)
            if n_stem:
                whole[part.stem : part.stem_stop] += slope[0, :, :n_stem].transpose(0, 1)


def _inputs(
    q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, part: Part, *, n_exact: int = N_SHORT
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return queries, keys and values of a part as the kernels take them, and a mask where queries see any before them.

    With fewer keys than `n_exact` they are in fp32.
    """
    own, stem = slice(part.start, part.stop), slice(part.stem, part.stem_stop)
    n_seen, dtype = part.stop - part.first + part.n_before, q_THD.dtype
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

    q = laid(q_THD[part.first : part.stop])
    if not part.n_before:
        return q, laid(k_TKD[own]), laid(v_TKD[own]), None
    k, v = laid(k_TKD[stem], k_TKD[own]), laid(v_TKD[stem], v_TKD[own])
    place_M = torch.arange(k.shape[2])
    seen_LM = place_M[None] <= part.n_before + torch.arange(q.shape[2])[:, None]
    mask_LM = torch.zeros(seen_LM.shape, dtype=dtype).masked_fill_(~seen_LM, float("-inf"))
    return q, k, v, mask_LM[None, None]


def _padded(rows_LHD: Tensor, like_1HLD: Tensor) -> Tensor:
    made = torch.zeros_like(like_1HLD)
    made[0, :, : len(rows_LHD)] = rows_LHD.transpose(0, 1)
    return made
