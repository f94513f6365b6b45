# pyright: basic
"""Decoders of Llama's form as modules of our own, with the names, operations and numbers of transformers' modules.

Importing transformers' modelling code takes longer than all else before a training's first step, so a base that was once
proven is built by these (`blueprint.py`). They are what adapters are attached to, and what `layer.py` is proven against.

Shapes: T tokens of the row, C hidden size, H query heads, K key heads, D head size.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tunesmith.lm import attention

DECODER: Final = "model"
HEAD: Final = "lm_head"


@dataclass(frozen=True, slots=True)
class Facts:
    """What names and shapes of the weights do not tell."""

    #: By the path of each norm.
    eps: dict[str, float]
    head_size: int
    scaling: float
    #: How far each layer sees back, None is all the way.
    windows: list[int | None]
    #: Angle that each pair of a head's numbers turns by from one position to the next, and what cosines are multiplied by.
    frequencies: list[float]
    turn_scale: float
    #: Whether the head is the embedding.
    tied: bool


class Plain(nn.Module):
    """A causal language model."""

    base_model_prefix: Final = DECODER

    def __init__(self, facts: Facts, tensors: dict[str, Tensor]) -> None:
        """Build it around its weights, which are taken out of `tensors`.

        Raises:
            KeyError: one is absent, or has no place.
        """
        super().__init__()
        parts = _Parts(facts, tensors)
        self.model = Decoder(parts)
        if facts.tied:
            self.lm_head = _Linear(self.model.embed_tokens.weight, None)
            self.lm_head.weight = self.model.embed_tokens.weight
        else:
            self.lm_head = parts.linear(HEAD)
        if odd := tensors.keys() - {f"{HEAD}.weight"}:
            raise KeyError(min(odd))
        #: Settings of the head that act on logits: there are none.
        self.config = SimpleNamespace()
        self._chosen = parts.chosen

    def get_output_embeddings(self) -> nn.Linear:
        """Return the head."""
        return self.lm_head

    def set_attn_implementation(self, name: str) -> None:
        """Attend by one of `attention.OURS` from now on."""
        self._chosen.name = name


class Decoder(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, parts: "_Parts") -> None:
        super().__init__()
        weight_VC = parts.take(f"{DECODER}.embed_tokens.weight")
        self.embed_tokens = nn.Embedding.from_pretrained(weight_VC)
        self.layers = nn.ModuleList(_Layer(parts, number) for number in range(len(parts.facts.windows)))
        self.norm = parts.norm(f"{DECODER}.norm")
        self.rotary_emb = _Rotary(parts.facts)

    def forward(self, input_ids: Tensor, position_ids: Tensor, *, use_cache: bool = False, **settings: Any) -> Any:
        """Return an object with `last_hidden_state` (1, T, C); the attention in use gets the `settings`."""
        if use_cache:
            raise ValueError("there is no cache here")
        x_1TC = self.embed_tokens(input_ids)
        turns = self.rotary_emb(x_1TC, position_ids)
        for layer in self.layers:
            x_1TC = layer(x_1TC, turns, settings)
        return SimpleNamespace(last_hidden_state=self.norm(x_1TC))


class RMSNorm(nn.Module):
    """Root mean square normalisation."""

    def __init__(self, weight_C: Tensor, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_C, requires_grad=False)
        self.variance_epsilon = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension, in fp32."""
        x32 = x.float()
        x32 = x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * x32.to(x.dtype)


class _Rotary(nn.Module):
    #: It depends on nothing but the position, whatever the angles were made by.
    rope_type: Final = "default"
    inv_freq: Tensor

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.attention_scaling = facts.turn_scale
        self.inv_freq = nn.Buffer(torch.tensor(facts.frequencies, dtype=torch.float32), persistent=False)

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles_1TD = (position_ids[..., None].float() * self.inv_freq).repeat(1, 1, 2)
        return tuple((turn * self.attention_scaling).to(x.dtype) for turn in (angles_1TD.cos(), angles_1TD.sin()))  # type: ignore[return-value]  # two of them


class _Layer(nn.Module):
    def __init__(self, parts: "_Parts", number: int) -> None:
        super().__init__()
        path = f"{DECODER}.layers.{number}"
        self.self_attn = _Attention(parts, f"{path}.self_attn", number)
        self.mlp = _Mlp(parts, f"{path}.mlp")
        self.input_layernorm = parts.norm(f"{path}.input_layernorm")
        self.post_attention_layernorm = parts.norm(f"{path}.post_attention_layernorm")

    def forward(self, x_1TC: Tensor, turns: tuple[Tensor, Tensor], settings: dict[str, Any]) -> Tensor:
        x_1TC = x_1TC + self.self_attn(self.input_layernorm(x_1TC), turns, settings)
        return x_1TC + self.mlp(self.post_attention_layernorm(x_1TC))


class _Attention(nn.Module):
    def __init__(self, parts: "_Parts", path: str, number: int) -> None:
        super().__init__()
        facts = parts.facts
        self.layer_idx, self.head_dim, self.scaling = number, facts.head_size, facts.scaling
        self.sliding_window, self.is_causal = facts.windows[number], True
        self._chosen = parts.chosen
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (parts.linear(f"{path}.{name}_proj") for name in "qkvo")
        self._with_norms = f"{path}.q_norm" in facts.eps
        if self._with_norms:
            self.q_norm, self.k_norm = parts.norm(f"{path}.q_norm"), parts.norm(f"{path}.k_norm")

    def forward(self, x_1TC: Tensor, turns: tuple[Tensor, Tensor], settings: dict[str, Any]) -> Tensor:
        q, k, v = (part(x_1TC).unflatten(-1, (-1, self.head_dim)) for part in (self.q_proj, self.k_proj, self.v_proj))
        if self._with_norms:
            q, k = self.q_norm(q), self.k_norm(k)
        heads_1HTD, keys_1KTD = (_turned(each.transpose(1, 2), *turns) for each in (q, k))
        attend = attention.OURS[self._chosen.name]
        out_1THD, _ = attend(
            self, heads_1HTD, keys_1KTD, v.transpose(1, 2), None,
            dropout=0.0, scaling=self.scaling, sliding_window=self.sliding_window, **settings,
        )  # fmt: skip
        return self.o_proj(out_1THD.flatten(2).contiguous())


def _turned(x_1HTD: Tensor, cos_1TD: Tensor, sin_1TD: Tensor) -> Tensor:
    first, second = x_1HTD.chunk(2, -1)
    return x_1HTD * cos_1TD[:, None] + torch.cat([-second, first], -1) * sin_1TD[:, None]


class _Mlp(nn.Module):
    def __init__(self, parts: "_Parts", path: str) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (
            parts.linear(f"{path}.{name}_proj") for name in ("gate", "up", "down")
        )
        self.act_fn = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


@dataclass(slots=True)
class _Chosen:
    """Which attention all layers use."""

    name: str = attention.NAME


class _Parts:
    """Weights to build of, by name."""

    def __init__(self, facts: Facts, tensors: dict[str, Tensor]) -> None:
        self.facts, self.chosen, self._tensors = facts, _Chosen(), tensors

    def take(self, name: str) -> Tensor:
        return self._tensors.pop(name)

    def norm(self, path: str) -> RMSNorm:
        return RMSNorm(self.take(f"{path}.weight"), self.facts.eps[path])

    def linear(self, path: str) -> nn.Linear:
        return _Linear(self.take(f"{path}.weight"), self._tensors.pop(f"{path}.bias", None))


class _Linear(nn.Linear):
    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        n_outputs, n_inputs = weight_OI.shape
        super().__init__(n_inputs, n_outputs, bias=bias_O is not None, device="meta")
        self.weight = nn.Parameter(weight_OI, requires_grad=False)
        if bias_O is not None:
            self.bias = nn.Parameter(bias_O, requires_grad=False)

    def reset_parameters(self) -> None:
        """Leave them: they are given."""
