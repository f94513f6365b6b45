# pyright: basic
"""LoRA on the linear layers of a model, several adapters at once: each span of tokens is led through the adapter it names.

`LoraModel` replaces every `nn.Linear` but the head (of a mixture of experts: those of attention alone) by a `LoraLinear`
over the same frozen weights. Adapters are kept in fp32; where the base computes in bf16 they have copies in bf16, refreshed
by `Adapter.sync` after each change.

Shapes: T tokens of the row, L tokens of a span, I inputs, O outputs of a layer, R rank.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Ranks that every server of LoRA adapters loads.
RANKS: Final = (1, 8, 16, 32, 64, 128)
RANK: Final = 16
ALPHA: Final = 32
#: Names that PEFT takes for experts (and their router) in a mixture of experts.
_NAMES_OF_EXPERTS: Final = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `start` to `stop` of the row belong to the adapter in slot `adapter`."""

    adapter: int
    start: int
    stop: int


@dataclass(slots=True)
class Pair:
    """The two factors of one layer in fp32, and their copies in the base's type (the same tensors where that is fp32)."""

    a_RI: nn.Parameter
    b_OR: nn.Parameter
    cast_a_RI: Tensor
    cast_b_OR: Tensor


@dataclass(frozen=True, slots=True)
class Adapter:
    """One job's adapter: a pair for each adapted layer, by the layer's path in the model."""

    pairs: dict[str, Pair]
    rank: int = RANK
    alpha: int = ALPHA

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied by: alpha over rank, as PEFT does."""
        return self.alpha / self.rank

    def parameters(self) -> list[nn.Parameter]:
        """Return every trainable tensor, in a fixed order."""
        return [factor for pair in self.pairs.values() for factor in (pair.a_RI, pair.b_OR)]

    def tensors(self) -> dict[str, Tensor]:
        """Return the fp32 factors by `PATH.lora_A` and `PATH.lora_B`."""
        named: dict[str, Tensor] = {}
        for path, pair in self.pairs.items():
            named[f"{path}.lora_A"] = pair.a_RI.detach()
            named[f"{path}.lora_B"] = pair.b_OR.detach()
        return named

    @torch.no_grad()
    def sync(self) -> None:
        """Bring the copies in the base's type up to date; to be called after every change of the factors."""
        pairs = [pair for pair in self.pairs.values() if pair.cast_a_RI.dtype != torch.float32]
        if pairs:
            copies = [copy for pair in pairs for copy in (pair.cast_a_RI, pair.cast_b_OR)]
            factors = [factor for pair in pairs for factor in (pair.a_RI, pair.b_OR)]
            for copy, factor in zip(copies, factors, strict=True):
                copy.copy_(factor)


@dataclass(slots=True)
class Route:
    """Shared by all layers of a model: which adapter each span of the row in hand goes through."""

    spans: tuple[Span, ...] = ()
    slots: dict[int, Adapter] = field(default_factory=dict[int, Adapter])
    #: Tokens whose last hidden state is wanted, ascending; None is all of them (see `last_layer.py`).
    asked_N: Tensor | None = None


class LoraLinear(nn.Module):
    """A frozen linear layer and the low-rank corrections of the spans of its input."""

    def __init__(self, path: str, base: nn.Linear, route: Route) -> None:
        super().__init__()
        self.path, self.base, self.route = path, base, route

    def forward(self, x: Tensor) -> Tensor:
        """Return `x W^T + b` plus, span by span, `scale * x A^T B^T`."""
        spans = self.route.spans
        if not spans:
            return self.base(x)
        if not torch.is_grad_enabled():
            return self._forward_only(x, spans)
        adapters = [self.route.slots[span.adapter] for span in spans]
        pairs = [adapter.pairs[self.path] for adapter in adapters]
        cuts = [
            (span.start, span.stop, pair, adapter.scale) for span, pair, adapter in zip(spans, pairs, adapters, strict=True)
        ]
        factors = [factor for pair in pairs for factor in (pair.a_RI, pair.b_OR)]
        x_TI = x.reshape(-1, x.shape[-1])
        y_TO = _LoraProduct.apply(x_TI, self.base.weight, self.base.bias, cuts, *factors)
        return y_TO.view(*x.shape[:-1], -1)  # type: ignore[union-attr]  # autograd functions are untyped

    def _forward_only(self, x: Tensor, spans: tuple[Span, ...]) -> Tensor:
        """Return the same without anything kept for a backward pass: a sampler takes very many, very short passes."""
        x_TI = x.reshape(-1, x.shape[-1])
        y_TO = F.linear(x_TI, self.base.weight, self.base.bias)
        for span in spans:
            adapter = self.route.slots[span.adapter]
            pair = adapter.pairs[self.path]
            u_LR = _rows(x_TI, span.start, span.stop) @ pair.cast_a_RI.t()
            _rows(y_TO, span.start, span.stop).addmm_(u_LR, pair.cast_b_OR.t(), alpha=adapter.scale)
        return y_TO.view(*x.shape[:-1], -1)


class _LoraProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, cuts: Any, *factors: Tensor) -> Tensor:
        del factors  # named for autograd; the products use their copies
        y_TO = F.linear(x_TI, weight_OI, bias_O)
        inner: list[Tensor] = []
        for start, stop, pair, scale in cuts:
            u_LR = (_rows(x_TI, start, stop) @ pair.cast_a_RI.t()).mul_(scale)
            _rows(y_TO, start, stop).addmm_(u_LR, pair.cast_b_OR.t())
            inner.append(u_LR)
        ctx.save_for_backward(x_TI, weight_OI, *inner)
        ctx.cuts = cuts
        return y_TO

    @staticmethod
    def backward(ctx: Any, grad_TO: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] - the arity is ours
        x_TI, weight_OI, *inner = ctx.saved_tensors
        grad_TO = grad_TO.contiguous()
        dx_TI = grad_TO @ weight_OI if ctx.needs_input_grad[0] else None
        slopes: list[Tensor] = []
        for (start, stop, pair, scale), u_LR in zip(ctx.cuts, inner, strict=True):
            grad_LO = _rows(grad_TO, start, stop)
            du_LR = (grad_LO @ pair.cast_b_OR).mul_(scale)
            slopes.append((du_LR.t() @ _rows(x_TI, start, stop)).float())
            slopes.append((grad_LO.t() @ u_LR).float())
            if dx_TI is not None:
                _rows(dx_TI, start, stop).addmm_(du_LR, pair.cast_a_RI)
        return dx_TI, None, None, None, *slopes


def _rows(matrix: Tensor, start: int, stop: int) -> Tensor:
    """Return rows `start` to `stop`, the matrix itself where that is all of them (one job is the normal case)."""
    return matrix if start == 0 and stop == matrix.shape[0] else matrix[start:stop]


class LoraModel:
    """A model whose linear layers take adapters; the base stays frozen and may be shared by many of them."""

    def __init__(self, model: nn.Module) -> None:
        """Freeze the model and replace its linear layers.

        Raises:
            ValueError: the model has no `nn.Linear` beside its head.
        """
        self.model = model
        self.route = Route()
        model.requires_grad_(False)
        self.layers: dict[str, LoraLinear] = {}
        #: A forward pass of our own that takes the modules' place (`forward.py`), once it was sought and where there is one.
        self.own: Any = None
        self.own_sought = False
        for path, linear in list(linear_layers(model)):
            parent, _, name = path.rpartition(".")
            layer = LoraLinear(path, linear, self.route)
            setattr(model.get_submodule(parent), name, layer)
            self.layers[path] = layer
        if not self.layers:
            raise ValueError(
                "this architecture has no nn.Linear layers beside its head, so there is nothing for LoRA to adapt"
            )

    def fresh(self, *, seed: int, rank: int = RANK, alpha: int = ALPHA) -> Adapter:
        """Return a new adapter: A uniform as PEFT draws it, from `seed` alone, B zero (so that it changes nothing yet)."""
        generator = torch.Generator().manual_seed(seed)
        tensors: dict[str, Tensor] = {}
        for path, layer in self.layers.items():
            bound = math.sqrt(3.0) * math.sqrt(2.0 / 6.0) / math.sqrt(layer.base.in_features)
            a_RI = torch.empty(rank, layer.base.in_features)
            tensors[f"{path}.lora_A"] = a_RI.uniform_(-bound, bound, generator=generator)
            tensors[f"{path}.lora_B"] = torch.zeros(layer.base.out_features, rank)
        return self.adapter(tensors, rank=rank, alpha=alpha)

    def adapter(self, tensors: dict[str, Tensor], *, rank: int, alpha: int) -> Adapter:
        """Return an adapter that holds copies of `tensors` (`PATH.lora_A`, `PATH.lora_B`).

        Raises:
            ValueError: the tensors are not those of this model at this rank.
        """
        expected = {f"{path}.lora_{factor}" for path in self.layers for factor in "AB"}
        if set(tensors) != expected:
            odd = sorted(set(tensors) ^ expected)
            raise ValueError(f"the adapter does not fit the base: {len(odd)} tensors differ, such as {odd[0]}")
        pairs: dict[str, Pair] = {}
        for path, layer in self.layers.items():
            a_RI, b_OR = tensors[f"{path}.lora_A"], tensors[f"{path}.lora_B"]
            weight = layer.base.weight
            if a_RI.shape != (rank, weight.shape[1]) or b_OR.shape != (weight.shape[0], rank):
                raise ValueError(
                    f"the adapter does not fit the base: {path} has factors {tuple(a_RI.shape)}, {tuple(b_OR.shape)}"
                )
            a = nn.Parameter(a_RI.to(weight.device, torch.float32, copy=True))
            b = nn.Parameter(b_OR.to(weight.device, torch.float32, copy=True))
            pairs[path] = Pair(a, b, a.detach().to(weight.dtype), b.detach().to(weight.dtype))
        return Adapter(pairs, rank=rank, alpha=alpha)

    def place(self, slot: int, adapter: Adapter) -> None:
        """Put an adapter into a slot, by whose number spans name it."""
        self.route.slots[slot] = adapter

    def take_out(self, slot: int) -> None:
        """Empty a slot."""
        del self.route.slots[slot]


def linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Yield path and layer of everything LoRA adapts: each `nn.Linear` except the output head.

    Of a mixture of experts only attention is adapted: its experts are stacked in one parameter, its routing is left alone,
    and what else bears a name that experts had in earlier releases PEFT would take for the experts.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]  # a transformers model
    mixture = any(path.rpartition(".")[2] == "experts" for path, _ in model.named_modules())
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head and (not mixture or _in_attention(path)):
            yield path, module


def _in_attention(path: str) -> bool:
    return ("attn" in path or "attention" in path) and path.rpartition(".")[2] not in _NAMES_OF_EXPERTS


def namesake(model: nn.Module) -> str | None:
    """Return the path of a module that has the name of an adapted layer and is none, None where there is none.

    Adapters name the layers that they are for by their last name alone, so others would adapt it too.
    """
    adapted = {path for path, _ in linear_layers(model)}
    names = {path.rpartition(".")[2] for path in adapted}
    return next((p for p, _ in model.named_modules() if p.rpartition(".")[2] in names and p not in adapted), None)
