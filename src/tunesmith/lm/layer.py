# pyright: basic
"""A decoder layer of Llama's form with its adapters, as one step of the backward pass on a CPU.

Written out by hand it keeps half of what autograd keeps, works on blocks of rows that stay in the cache, and computes no
gradient of what is frozen. It rounds where transformers' modules round.

Shapes: T tokens of the row, N of them asked for, M rows of a block, C hidden size, H query heads, K key heads, J both, D
head size, O numbers of all heads, F inner size of the MLP.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tunesmith.lm.attention import Piece
from tunesmith.lm.blocks import Block
from tunesmith.lm.cpu_attention import attend, attend_back
from tunesmith.lm.form import LayerForm, Norm
from tunesmith.lm.joined import Joined, Product
from tunesmith.lm.lora import Adapter


class Parts:
    """A layer's linear parts, those of one input joined."""

    def __init__(self, form: LayerForm) -> None:
        self.form = form
        self.qkv, self.o = Joined(form.q, form.k, form.v), Joined(form.o)
        self.gate_up, self.down = Joined(form.gate, form.up), Joined(form.down)


@dataclass(frozen=True, slots=True)
class Row:
    """What all layers are told of a row."""

    cos_T1D: Tensor
    sin_T1D: Tensor
    lengths: tuple[Piece, ...]
    #: All tokens, cut.
    blocks: tuple[Block, ...]
    #: Asked tokens, and them cut: the last layer goes on with them alone.
    asked_N: Tensor
    asked_blocks: tuple[Block, ...]
    #: Numbered as the blocks name them.
    adapters: dict[int, Adapter]


class Work:
    """A layer's products over one row."""

    def __init__(self, parts: Parts, row: Row, *, asked: bool) -> None:
        self.form, self.row, self.asked = parts.form, row, asked
        self.products = [Product(joined, row.adapters) for joined in (parts.qkv, parts.o, parts.gate_up, parts.down)]

    def parameters(self) -> list[nn.Parameter]:
        """Return the factors of all parts."""
        return [factor for product in self.products for factor in product.parameters()]

    @property
    def late_blocks(self) -> tuple[Block, ...]:
        """What goes on after attention."""
        return self.row.asked_blocks if self.asked else self.row.blocks


class Layer(torch.autograd.Function):
    """`apply(x_TC, work, *work.parameters())` returns (T, C), or (N, C) where only the asked tokens go on."""

    @staticmethod
    def forward(ctx: Any, x_TC: Tensor, work: Work, *_: Tensor) -> Tensor:
        """Compute the layer."""
        form, row, (qkv, o, gate_up, down) = work.form, work.row, work.products
        n_turned, n_tokens = form.n_queries + form.n_keys, len(x_TC)
        n_TC, qkv_TO = torch.empty_like(x_TC), x_TC.new_empty(n_tokens, qkv.joined.n_outputs)
        turned_TJD = x_TC.new_empty(n_tokens, n_turned, form.head_size)
        for block in row.blocks:
            at = slice(block.start, block.stop)
            qkv_MO = qkv.forward(block, n_TC[at].copy_(norm(x_TC[at], form.before_attention)), qkv_TO[at])
            heads_MJD = qkv_MO[:, : n_turned * form.head_size].unflatten(1, (n_turned, -1))
            heads_MJD = heads_MJD.float() if form.of_heads is None else norm(heads_MJD, form.of_heads)
            turned_TJD[at] = turn(heads_MJD, row.cos_T1D[at], row.sin_T1D[at])
        v_TKD = qkv_TO[:, n_turned * form.head_size :].unflatten(1, (form.n_keys, -1))
        q_THD, k_TKD = turned_TJD.split([form.n_queries, form.n_keys], 1)
        asked_N = row.asked_N if work.asked else None
        out_THD, kept = attend(q_THD, k_TKD, v_TKD, row.lengths, form.scaling, asked_N)
        a_NO, h_NC = out_THD.flatten(1), x_TC
        if asked_N is not None:
            a_NO, h_NC = a_NO.index_select(0, asked_N), h_NC.index_select(0, asked_N)
        h_NC, y_NC = h_NC.clone(), torch.empty_like(h_NC)
        gate_up_NF = x_TC.new_empty(len(a_NO), gate_up.joined.n_outputs)
        for block in work.late_blocks:
            at = slice(block.start, block.stop)
            h_MC = o.forward(block, a_NO[at], h_NC[at], add=True)
            gate_up_MF = gate_up.forward(block, norm(h_MC, form.before_mlp).to(h_MC.dtype), gate_up_NF[at])
            gate_MF, up_MF = gate_up_MF.chunk(2, 1)
            down.forward(block, F.silu(gate_MF).mul_(up_MF), y_NC[at].copy_(h_MC), add=True)
        ctx.save_for_backward(x_TC, n_TC, qkv_TO, turned_TJD, a_NO, h_NC, gate_up_NF)
        ctx.work, ctx.kept = work, kept
        return y_NC

    @staticmethod
    def backward(ctx: Any, dy_NC: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] - the arity is ours
        """Return the gradients of the layer's input, where it has any, and of the factors."""
        x_TC, n_TC, qkv_TO, turned_TJD, a_NO, h_NC, gate_up_NF = ctx.saved_tensors
        work, kept = ctx.work, ctx.kept
        form, row, (qkv, o, gate_up, down) = work.form, work.row, work.products
        dh_NC, da_NO = torch.empty_like(h_NC), torch.empty_like(a_NO)
        for block in work.late_blocks:
            at = slice(block.start, block.stop)
            dy_MC, h_MC = dy_NC[at], h_NC[at]
            gate_MF, up_MF = gate_up_NF[at].chunk(2, 1)
            act_MF = F.silu(gate_MF)
            d_MF = torch.empty_like(act_MF)
            down.back(block, dy_MC, act_MF * up_MF, d_MF)
            d_gate_up_MF = torch.empty_like(gate_up_NF[at])
            d_gate_MF, d_up_MF = d_gate_up_MF.chunk(2, 1)
            torch.mul(act_MF, d_MF, out=d_up_MF)
            torch.ops.aten.silu_backward.grad_input(d_MF.mul_(up_MF), gate_MF, grad_input=d_gate_MF)
            n_MC = norm(h_MC, form.before_mlp).to(h_MC.dtype)
            dn_MC = torch.empty_like(n_MC)
            gate_up.back(block, d_gate_up_MF, n_MC, dn_MC)
            dh_MC = dh_NC[at].copy_(norm_back(dn_MC.float(), h_MC, form.before_mlp).add_(dy_MC.float()))
            o.back(block, dh_MC, a_NO[at], da_NO[at])
        if work.asked:
            dh_NC = torch.zeros_like(x_TC).index_copy_(0, row.asked_N, dh_NC)
            da_NO = da_NO.new_zeros(len(x_TC), da_NO.shape[1]).index_copy_(0, row.asked_N, da_NO)
        n_turned, size = form.n_queries + form.n_keys, form.head_size
        q_THD, k_TKD = turned_TJD.split([form.n_queries, form.n_keys], 1)
        v_TKD = qkv_TO[:, n_turned * size :].unflatten(1, (form.n_keys, -1))
        # What no query sees, and queries that nobody asks for, have no slope.
        d_qkv_TJD = (torch.zeros_like if work.asked else torch.empty_like)(qkv_TO).unflatten(1, (-1, size))
        slopes = d_qkv_TJD.split([form.n_queries, form.n_keys, form.n_keys], 1)
        attend_back(da_NO.view_as(q_THD), (q_THD, k_TKD, v_TKD), kept, form.scaling, slopes)
        # Below the first layer there is nothing that learns.
        dx_TC = torch.empty_like(x_TC) if ctx.needs_input_grad[0] else None
        for block in row.blocks:
            at = slice(block.start, block.stop)
            d_heads_MJD = d_qkv_TJD[at, :n_turned]
            slope_MJD = turn(d_heads_MJD.float(), row.cos_T1D[at], row.sin_T1D[at], back=True)
            if form.of_heads is not None:
                slope_MJD = norm_back(slope_MJD, qkv_TO[at, : n_turned * size].unflatten(1, (n_turned, -1)), form.of_heads)
            d_heads_MJD.copy_(slope_MJD)
            dn_MC = None if dx_TC is None else torch.empty_like(n_TC[at])
            qkv.back(block, d_qkv_TJD[at].flatten(1), n_TC[at], dn_MC)
            if dx_TC is not None and dn_MC is not None:
                dx_TC[at] = norm_back(dn_MC.float(), x_TC[at], form.before_attention).add_(dh_NC[at].float())
        return dx_TC, None, *(slope for product in work.products for slope in product.gradients())


class Normalised(torch.autograd.Function):
    """A norm as one step of the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, of: Norm) -> Tensor:
        """Normalise."""
        ctx.save_for_backward(x)
        ctx.of = of
        return norm(x, of).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] - the arity is ours
        """Return the gradient of what was normalised."""
        (x,) = ctx.saved_tensors
        return norm_back(grad.to(torch.float32, copy=True), x, ctx.of).to(x.dtype), None


def norm(x: Tensor, of: Norm) -> Tensor:
    """Return `x` normalised over its last dimension, in fp32; there each operation takes a fraction of the time."""
    x32 = x.to(torch.float32, copy=True)
    return x32.mul_(_inverse(x32, of)).mul_(of.weight_C)


def norm_back(grad32: Tensor, x: Tensor, of: Norm) -> Tensor:
    """Return the gradient of what was normalised, in the place of the outputs' gradient."""
    x32 = x.float()
    inverse = _inverse(x32, of)
    lean = torch.linalg.vecdot(grad32.mul_(of.weight_C), x32)[..., None].mul_(inverse.pow(3)).div_(x.shape[-1])
    return grad32.mul_(inverse).addcmul_(x32, lean, value=-1)


def _inverse(x32: Tensor, of: Norm) -> Tensor:
    squared = torch.linalg.vector_norm(x32, dim=-1, keepdim=True).square_()
    return squared.div_(x32.shape[-1]).add_(of.eps).rsqrt_()


def turn(x32_MJD: Tensor, cos_M1D: Tensor, sin_M1D: Tensor, *, back: bool = False) -> Tensor:
    """Return queries or keys turned by the angles of their positions, or turned `back`."""
    half = x32_MJD.shape[-1] // 2
    out_MJD = x32_MJD * cos_M1D
    first, second = (sin_M1D[..., half:], sin_M1D[..., :half]) if back else (sin_M1D[..., :half], sin_M1D[..., half:])
    out_MJD[..., :half].addcmul_(x32_MJD[..., half:], first, value=1 if back else -1)
    out_MJD[..., half:].addcmul_(x32_MJD[..., :half], second, value=-1 if back else 1)
    return out_MJD
