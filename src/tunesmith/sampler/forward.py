# pyright: basic
"""The decoders of Llama's form (Llama, Qwen2, Qwen3, Mistral and whoever is built alike) with as few operations as can be.

A pass of a few tokens costs little but the calls that it is made of: here queries, keys and values are one product, gate and
up another, one rotation turns queries and keys, and of a prompt's tokens only the last goes through the last layer whole.
Numbers are rounded where transformers' modules round them, so that training, which runs those, computes the same.

Shapes: T tokens of the row (columns, see `products.py`), N of them asked for, C hidden size, H query heads, K key heads, D
head size, F numbers of a position's keys and values, M inner size of the MLP.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tunesmith.lm.last_layer import AskedOnly
from tunesmith.lm.lora import LoraLinear
from tunesmith.sampler.attention import Knobs, attend, step
from tunesmith.sampler.cache import Decoding, SlotCache, Slots
from tunesmith.sampler.products import Corrections, Product, few, n_columns

#: Rotations that depend on nothing but the position.
_ROTATIONS: Final = frozenset({"default", "linear", "llama3", "yarn"})
_ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
_SILUS: Final = frozenset({"SiLU", "SiLUActivation"})
_MLP: Final = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Norm:
    """Root mean square normalisation, of columns or of a head's numbers."""

    weight: Tensor
    eps: Tensor

    def __call__(self, x: Tensor, dim: int) -> Tensor:
        """Normalise along a dimension; `weight` stands ready to be multiplied."""
        length = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float32)
        scale = torch.addcmul(self.eps, length, length, value=1 / x.shape[dim]).rsqrt_()
        return (x * scale).to(x.dtype).mul_(self.weight)


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer."""

    before_attention: Norm
    qkv: Product
    #: Of the query heads and the key heads, one norm for all of them.
    of_heads: Norm | None
    output: Product
    before_mlp: Norm
    gate_up: Product
    down: Product
    knobs: Knobs
    index: int


class Forward:
    """A decoder recognised; its modules' weights are views of the joined ones from then on."""

    def __init__(self, decoder: Any, knobs: dict[int, Knobs]) -> None:
        """Join the weights of a decoder of which `recognised` is true; `knobs` are its layers' settings."""
        first = decoder.layers[0].self_attn
        self._embedding_VC = decoder.embed_tokens.weight
        self._rotary = decoder.rotary_emb
        self._head_size = int(first.head_dim)
        self._n_queries = first.q_proj.base.out_features // self._head_size
        self._n_keys = first.k_proj.base.out_features // self._head_size
        self._layers = [self._joined(layer, knobs[index], index) for index, layer in enumerate(decoder.layers)]
        self._norm = _norm(decoder.norm)
        #: Cosines and sines of the positions so far (P, 2, D).
        self._turns_P2D = self._embedding_VC.new_empty(0, 2, self._head_size)

    def _joined(self, layer: Any, knobs: Knobs, index: int) -> Layer:
        attention, mlp = layer.self_attn, _inner(layer.mlp)
        of_heads = None
        if hasattr(attention, "q_norm"):
            n_heads = (self._n_queries, 1), (self._n_keys, 1)
            weights = [norm.weight.detach().expand(*n, -1) for norm, n in zip(_head_norms(attention), n_heads, strict=True)]
            of_heads = Norm(torch.cat(weights)[:, 0], _eps(attention.q_norm))
        return Layer(
            before_attention=_norm(layer.input_layernorm),
            qkv=Product(attention.q_proj, attention.k_proj, attention.v_proj),
            of_heads=of_heads,
            output=Product(attention.o_proj),
            before_mlp=_norm(layer.post_attention_layernorm),
            gate_up=Product(mlp.gate_proj, mlp.up_proj),
            down=Product(mlp.down_proj),
            knobs=knobs,
            index=index,
        )

    def n_columns(self, n_tokens: int) -> int:
        """Return how many columns a pass of so many tokens has."""
        return n_columns(n_tokens, self._embedding_VC)

    def __call__(
        self,
        tokens: list[int],
        positions: list[int],
        slots: Slots,
        corrections: Corrections | None,
        asked: "Asked | None" = None,
    ) -> Tensor:
        """Return the last hidden states of a packed row (T, C), or of the tokens that are asked for (N, C)."""
        n_tokens, more = len(tokens), [0] * (self.n_columns(len(tokens)) - len(tokens))
        numbers_2T = torch.tensor([tokens + more, positions + more], device=self._embedding_VC.device)
        x_CT = few(F.embedding(numbers_2T[0], self._embedding_VC))
        turns_T2D = self._turns(numbers_2T[1], max(positions), slots.cache)
        for layer in self._layers[:-1]:
            qkv_TO = self._qkv(layer, x_CT, turns_T2D, corrections)
            store = self._write(layer, qkv_TO, slots)
            heads_THD = attend(self._queries(qkv_TO), store, slots, layer.knobs)
            x_CT = self._rest(layer, x_CT, heads_THD, corrections)
        layer = self._layers[-1]
        qkv_TO = self._qkv(layer, x_CT, turns_T2D, corrections)
        store = self._write(layer, qkv_TO, slots)
        if asked is None:
            heads_NHD = attend(self._queries(qkv_TO), store, slots, layer.knobs)
            n_asked = n_tokens
        else:
            more = [0] * (self.n_columns(len(asked.places)) - len(asked.places))
            place_N = torch.tensor(asked.places + more, device=x_CT.device)
            n_asked = len(asked.places)
            heads_NHD = step(self._queries(qkv_TO)[place_N[:n_asked]], store, asked.decoding, layer.knobs)
            x_CT, corrections = few(x_CT.t()[place_N]), asked.corrections
        x_CN = self._rest(layer, x_CT, heads_NHD, corrections)
        return self._norm(x_CN, 0).t()[:n_asked]

    def _turns(self, position_T: Tensor, last: int, cache: SlotCache) -> Tensor:
        """Return cosine and sine of each token's angles (T, 2, D); those of half the numbers turn the other way."""
        if last >= cache.n_positions:  # only a proof has positions that no slot has
            return self._computed_turns(position_T)
        if last >= self._turns_P2D.shape[0]:
            self._turns_P2D = self._computed_turns(torch.arange(cache.n_positions, device=position_T.device))
        return self._turns_P2D[position_T]

    def _computed_turns(self, position_P: Tensor) -> Tensor:
        like = self._embedding_VC[:1]
        cos_1PD, sin_1PD = self._rotary(like[None], position_ids=position_P[None])
        sin_1PD[..., : self._head_size // 2].neg_()
        return torch.stack([cos_1PD[0], sin_1PD[0]], 1)

    def _qkv(self, layer: Layer, x_CT: Tensor, turns_T2D: Tensor, corrections: Corrections | None) -> Tensor:
        """Return queries and keys, normalised and turned, and values, side by side for each token."""
        qkv_TO = layer.qkv(layer.before_attention(x_CT, 0), corrections).t().contiguous()
        n_turned = self._n_queries + self._n_keys
        turned_THD = qkv_TO[:, : n_turned * self._head_size].unflatten(1, (n_turned, -1))
        heads_THD = turned_THD if layer.of_heads is None else layer.of_heads(turned_THD, 2)
        swapped_THD = heads_THD.unflatten(2, (2, -1)).flip(2).flatten(2)
        cos_T1D, sin_T1D = turns_T2D[:, None, 0], turns_T2D[:, None, 1]
        torch.addcmul(heads_THD * cos_T1D, swapped_THD, sin_T1D, out=turned_THD)
        return qkv_TO

    def _queries(self, qkv_TO: Tensor) -> Tensor:
        return qkv_TO[:, : self._n_queries * self._head_size].unflatten(1, (self._n_queries, -1))

    def _write(self, layer: Layer, qkv_TO: Tensor, slots: Slots) -> Any:
        rows_TF = qkv_TO[:, self._n_queries * self._head_size :]
        store = slots.cache.store(layer.index, self._n_keys, self._n_keys * self._head_size, rows_TF)
        store.write(rows_TF, slots)
        return store

    def _rest(self, layer: Layer, x_CT: Tensor, heads_THD: Tensor, corrections: Corrections | None) -> Tensor:
        """Return what leaves the layer, from what entered it and what its attention found."""
        heads_TO = heads_THD.flatten(1)
        missing = x_CT.shape[1] - heads_TO.shape[0]
        if missing:
            heads_TO = F.pad(heads_TO, (0, 0, 0, missing))
        x_CT = x_CT + layer.output(few(heads_TO), corrections)
        gate_up_OT = layer.gate_up(layer.before_mlp(x_CT, 0), corrections)
        gate_MT, up_MT = gate_up_OT.chunk(2)
        return x_CT + layer.down(F.silu(gate_MT).mul_(up_MT), corrections)


@dataclass(frozen=True, slots=True)
class Asked:
    """The tokens of a row whose last hidden state is wanted: the last of each segment."""

    places: list[int]
    decoding: Decoding
    #: For the asked tokens alone, with the columns that `n_columns` adds to them.
    corrections: Corrections | None


def recognised(decoder: Any) -> bool:
    """Whether a decoder looks like Llama's, part by part; that it computes like it has still to be proven."""
    if not _is(decoder, "embed_tokens", "layers", "norm", "rotary_emb") or type(decoder.embed_tokens) is not nn.Embedding:
        return False
    rope_type = getattr(decoder.rotary_emb, "rope_type", None)
    if rope_type not in _ROTATIONS or not len(decoder.layers) or not _is_norm(decoder.norm):
        return False
    # a part that was spread over processes, or quantised, is not a plain tensor
    plain = all(type(parameter.data) is Tensor for parameter in decoder.parameters())
    return plain and all(_recognised_layer(layer) for layer in decoder.layers)


def _recognised_layer(layer: Any) -> bool:
    if not _is(layer, "self_attn", "mlp", "input_layernorm", "post_attention_layernorm"):
        return False
    attention, mlp = layer.self_attn, _inner(layer.mlp)
    if not _is(mlp, *_MLP, "act_fn") or type(mlp.act_fn).__name__ not in _SILUS:
        return False
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    if _is(attention, *_ATTENTION, "q_norm", "k_norm"):
        norms += _head_norms(attention)
    elif not _is(attention, *_ATTENTION):
        return False
    if not all(map(_is_norm, norms)) or len({norm.variance_epsilon for norm in norms[2:]}) > 1:
        return False
    head_size = getattr(attention, "head_dim", None)
    parts = [getattr(attention, name) for name in _ATTENTION] + [getattr(mlp, name) for name in _MLP]
    if not isinstance(head_size, int) or not all(isinstance(part, LoraLinear) for part in parts):
        return False
    q, k, v, _, gate, up, _ = (part.base for part in parts)
    even = k.out_features == v.out_features and all(part.out_features % head_size == 0 for part in (q, k))
    alike = all(len({part.bias is None for part in joined}) == 1 for joined in ((q, k, v), (gate, up)))
    return even and alike and all(norm.weight.shape == (head_size,) for norm in norms[2:])


def _is(module: Any, *names: str) -> bool:
    """Whether a module has exactly these parts, no parameter of its own, and nothing hooked to it."""
    hooks = module._forward_hooks or module._forward_pre_hooks
    return {name for name, _ in module.named_children()} == set(names) and not module._parameters and not hooks


def _is_norm(module: Any) -> bool:
    return (
        type(module).__name__.endswith("RMSNorm")
        and [*module._parameters] == ["weight"]
        and isinstance(getattr(module, "variance_epsilon", None), float)
    )


def _head_norms(attention: Any) -> list[Any]:
    return [attention.q_norm, attention.k_norm]


def _inner(mlp: Any) -> Any:
    """Return the MLP inside what training may have put around a last layer's."""
    return mlp.inner if isinstance(mlp, AskedOnly) else mlp


def _norm(module: Any) -> Norm:
    return Norm(module.weight.detach()[:, None], _eps(module))


def _eps(module: Any) -> Tensor:
    return torch.tensor(module.variance_epsilon, dtype=torch.float32, device=module.weight.device)
