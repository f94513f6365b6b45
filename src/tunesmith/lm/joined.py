# pyright: basic
"""Linear layers of one input as one product, with the low-rank corrections of its rows, forward and back.

Shapes: T rows, M rows of a block, I inputs, O outputs of all layers together, R ranks of all layers together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tunesmith.lm.blocks import Block
from tunesmith.lm.lora import Adapter, LoraLinear


class Joined:
    """Layers of one input, whose weights lie side by side; those of the modules are views of them."""

    def __init__(self, *layers: LoraLinear) -> None:
        self.layers = layers
        self.linears = [layer.base for layer in layers]
        self.sizes = [linear.out_features for linear in self.linears]

    def weight(self) -> Tensor:
        """Return all weights as one (O, I); they are moved together where they do not lie so yet."""
        weights = [linear.weight.data for linear in self.linears]
        first = weights[0]
        place, (step, _) = first.storage_offset(), first.stride()
        for weight in weights:
            alike = weight.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
            if not alike or weight.stride() != first.stride() or weight.storage_offset() != place:
                return self._move(weights)
            place += len(weight) * step
        return first.as_strided((self.n_outputs, first.shape[1]), first.stride())

    def _move(self, weights: list[Tensor]) -> Tensor:
        weight_OI = torch.cat(weights)
        for linear, part_OI in zip(self.linears, weight_OI.split(self.sizes), strict=True):
            linear.weight.data = part_OI
        return weight_OI

    def bias(self) -> Tensor | None:
        """Return all biases as one, None where there is none."""
        if all(linear.bias is None for linear in self.linears):
            return None
        return torch.cat(
            [
                linear.bias.detach() if linear.bias is not None else linear.weight.new_zeros(linear.out_features)
                for linear in self.linears
            ]
        )

    @property
    def n_outputs(self) -> int:
        """Outputs of all layers together."""
        return sum(self.sizes)

    def factors(self, adapter: Adapter) -> "Factors":
        """Return an adapter's factors of these layers."""
        pairs = [adapter.pairs[layer.path] for layer in self.layers]
        if len(pairs) == 1:
            return Factors(pairs[0].cast_a_RI, pairs[0].cast_b_OR, adapter.scale)
        a_RI = torch.cat([pair.cast_a_RI for pair in pairs])
        b_OR = a_RI.new_zeros(self.n_outputs, len(a_RI))
        for at, rank in _diagonal(self.sizes, adapter.rank):
            b_OR[at, rank] = pairs[rank.start // adapter.rank].cast_b_OR
        return Factors(a_RI, b_OR, adapter.scale)


@dataclass(slots=True)
class Factors:
    """The factors of layers that are computed as one: A one above the other, B along the diagonal; and their slopes."""

    a_RI: Tensor
    b_OR: Tensor
    scale: float
    slope_a_RI: Tensor | None = None
    slope_b_RO: Tensor | None = None

    def add(self, x_MI: Tensor, grad_MO: Tensor, u_MR: Tensor, du_MR: Tensor) -> None:
        """Add to the slopes what a block has."""
        a_RI, b_RO = du_MR.t() @ x_MI, u_MR.t() @ grad_MO
        if self.slope_a_RI is None or self.slope_b_RO is None:
            self.slope_a_RI, self.slope_b_RO = a_RI.float(), b_RO.float()
        else:
            self.slope_a_RI += a_RI
            self.slope_b_RO += b_RO


class Product:
    """A `Joined` for one row: the factors of the adapters in it, and what the way back needs."""

    def __init__(self, joined: Joined, adapters: dict[int, Adapter]) -> None:
        self.joined, self.adapters = joined, adapters
        self.weight_OI, self.bias_O = joined.weight().detach(), joined.bias()
        self.factors = {number: joined.factors(adapter) for number, adapter in adapters.items()}
        self.inner: dict[int, Tensor] = {}

    def parameters(self) -> list[nn.Parameter]:
        """Return A and B of each adapter and layer."""
        pairs = [adapter.pairs[layer.path] for adapter in self.adapters.values() for layer in self.joined.layers]
        return [factor for pair in pairs for factor in (pair.a_RI, pair.b_OR)]

    def forward(self, block: Block, x_MI: Tensor, y_MO: Tensor, *, add: bool = False) -> Tensor:
        """Write the outputs of a block into `y_MO`, or add them there."""
        if add:
            y_MO.addmm_(x_MI, self.weight_OI.t())
        else:
            torch.mm(x_MI, self.weight_OI.t(), out=y_MO)
        if self.bias_O is not None:
            y_MO += self.bias_O
        if block.adapter is not None:
            factors = self.factors[block.adapter]
            u_MR = self.inner[block.start] = x_MI @ factors.a_RI.t()
            y_MO.addmm_(u_MR, factors.b_OR.t(), alpha=factors.scale)
        return y_MO

    def back(self, block: Block, grad_MO: Tensor, x_MI: Tensor, dx_MI: Tensor | None) -> None:
        """Write the gradient of the inputs into `dx_MI`, where it is wanted, and add to those of the factors."""
        if dx_MI is not None:
            torch.mm(grad_MO, self.weight_OI, out=dx_MI)
        if block.adapter is not None:
            factors = self.factors[block.adapter]
            du_MR = grad_MO @ factors.b_OR
            if dx_MI is not None:
                dx_MI.addmm_(du_MR, factors.a_RI, alpha=factors.scale)
            factors.add(x_MI, grad_MO, self.inner[block.start], du_MR)

    def gradients(self) -> list[Tensor]:
        """Return the slopes in the order of `parameters`."""
        found: list[Tensor] = []
        for number, adapter in self.adapters.items():
            factors = self.factors[number]
            for at, rank in _diagonal(self.joined.sizes, adapter.rank):
                if factors.slope_a_RI is None or factors.slope_b_RO is None:
                    pair = adapter.pairs[self.joined.layers[rank.start // adapter.rank].path]
                    found += [torch.zeros_like(pair.a_RI), torch.zeros_like(pair.b_OR)]
                else:
                    found.append(factors.slope_a_RI[rank] * factors.scale)
                    found.append((factors.slope_b_RO[rank, at].t() * factors.scale).contiguous())
        return found


def _diagonal(sizes: Sequence[int], rank: int) -> list[tuple[slice, slice]]:
    """Return the outputs and the ranks of each layer."""
    found: list[tuple[slice, slice]] = []
    start = 0
    for number, size in enumerate(sizes):
        found.append((slice(start, start + size), slice(number * rank, (number + 1) * rank)))
        start += size
    return found
