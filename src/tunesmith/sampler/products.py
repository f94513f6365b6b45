# pyright: basic
"""Products of a pass: layers with the same input as one, and what adapters add to them, several adapters at once.

Tokens are columns here, whichever way they lie in memory. A processor multiplies few columns in bf16 much faster with the
weights on the left, where it does not have to rearrange them at every call; in fp32 it is fastest with weights that lie
input by input. Joined weights are laid out so, and the modules' own become views of them: nothing is held twice.

Shapes: T columns (tokens), I inputs, O outputs, A ranks of adapters, R of one adapter's layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.lm.lora import Adapter, LoraLinear, Span

#: So many columns count as few.
N_FEW: Final = 64
_FEW: Final = (1, 2, 4, 8, 16, 24, 32, 48, N_FEW)


def n_columns(n: int, weight: Tensor) -> int:
    """Return how many columns to compute for `n` tokens.

    In bf16 a CPU makes a program of about a megabyte for each size of a product, and keeps it: sizes are rounded up to few.
    """
    if not _makes_programs(weight):
        return n
    if n <= N_FEW:
        return next(size for size in _FEW if size >= n)
    stride = 32 if n <= 256 else 128 if n <= 1024 else 512
    return -(-n // stride) * stride


def multiply(weight_OI: Tensor, x_IT: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return `W x + b` (O, T)."""
    n = x_IT.shape[1]
    if n > N_FEW or not _makes_programs(weight_OI):
        return F.linear(x_IT.t(), weight_OI, bias_O).t()
    if n == 1:
        x_I = x_IT[:, 0]
        return (torch.mv(weight_OI, x_I) if bias_O is None else torch.addmv(bias_O, weight_OI, x_I))[:, None]
    return torch.mm(weight_OI, x_IT) if bias_O is None else torch.addmm(bias_O[:, None], weight_OI, x_IT)


def few(x_TI: Tensor) -> Tensor:
    """Return rows as columns (I, T), in memory as `multiply` leaves its result."""
    x_IT = x_TI.t()
    return x_IT.contiguous() if x_TI.shape[0] <= N_FEW and _makes_programs(x_TI) else x_IT


def _makes_programs(tensor: Tensor) -> bool:
    return tensor.dtype == torch.bfloat16 and tensor.device.type == "cpu"


def _laid_out(weight_OI: Tensor) -> Tensor:
    """Return the weight as `multiply` reads it fastest."""
    fp32_on_cpu = weight_OI.dtype == torch.float32 and weight_OI.device.type == "cpu"
    return weight_OI.t().contiguous().t() if fp32_on_cpu else weight_OI.contiguous()


class Product:
    """Neighbouring linear layers as one product; their weights become views of its weight."""

    def __init__(self, *layers: LoraLinear) -> None:
        """Join layers that have the same input; all of them have a bias, or none."""
        self.layers = layers
        linears = [layer.base for layer in layers]
        self.weight_OI = _laid_out(torch.cat([linear.weight.detach() for linear in linears]))
        biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
        self.bias_O = torch.cat(biases) if biases else None
        for linear, part_OI in zip(linears, self.weight_OI.split([linear.out_features for linear in linears]), strict=True):
            linear.weight.data = part_OI

    def __call__(self, x_IT: Tensor, corrections: "Corrections | None") -> Tensor:
        """Return the layers' outputs, one below another (O, T)."""
        y_OT = multiply(self.weight_OI, x_IT, self.bias_O)
        if corrections is not None:
            corrections.add(self, x_IT, y_OT)
        return y_OT


@dataclass(frozen=True, slots=True)
class Factors:
    """The low-rank factors of one product for some adapters: of each adapter, of each of its layers, side by side."""

    a_AI: Tensor
    #: Times the adapter's scale.
    b_OA: Tensor
    #: Which of the adapters each rank belongs to.
    owner_A: Tensor

    @classmethod
    def of(cls, product: Product, adapters: Sequence[Adapter]) -> "Factors":
        """Copy the factors of adapters."""
        weight = product.weight_OI
        pairs = [[adapter.pairs[layer.path] for layer in product.layers] for adapter in adapters]
        owners = [place for place, each in enumerate(pairs) for pair in each for _ in range(pair.a_RI.shape[0])]
        a_AI = torch.cat([pair.cast_a_RI for each in pairs for pair in each])
        b_OA = weight.new_zeros(weight.shape[0], len(owners))
        column = 0
        for adapter, each in zip(adapters, pairs, strict=True):
            row = 0
            for pair in each:
                n_outputs, rank = pair.b_OR.shape
                b_OA[row : row + n_outputs, column : column + rank] = pair.b_OR.detach() * adapter.scale
                row, column = row + n_outputs, column + rank
        return cls(_laid_out(a_AI), _laid_out(b_OA), torch.tensor(owners, device=weight.device))


@dataclass(slots=True)
class Stack:
    """Factors of the adapters that a pass needs, made when the first product asks for them."""

    slots: tuple[int, ...]
    adapters: tuple[Adapter, ...]
    factors: dict[int, Factors] = field(default_factory=dict[int, Factors])
    #: Which ranks the columns of a pass must not use, by the product's rank owners and the columns' slots.
    masks: dict[tuple[int, tuple[int | None, ...]], Tensor] = field(
        default_factory=dict[tuple[int, tuple[int | None, ...]], Tensor]
    )

    def of(self, product: Product) -> Factors:
        """Return the factors for a product."""
        factors = self.factors.get(id(product))
        if factors is None:
            factors = self.factors[id(product)] = Factors.of(product, self.adapters)
        return factors

    def mask(self, factors: Factors, columns: tuple[int | None, ...]) -> Tensor:
        """Return True for the ranks (A, T) that are not of the column's adapter; the same for all products of a form."""
        key = len(factors.owner_A), columns
        mask_AT = self.masks.get(key)
        if mask_AT is None:
            if len(self.masks) > 8:
                self.masks.clear()  # rows have come and gone
            places = {slot: place for place, slot in enumerate(self.slots)}
            column_T = torch.tensor(
                [-1 if slot is None else places[slot] for slot in columns], device=factors.owner_A.device
            )
            mask_AT = self.masks[key] = factors.owner_A[:, None] != column_T[None]
        return mask_AT


class Corrections:
    """What the adapters of a pass add to its products."""

    def add(self, product: Product, x_IT: Tensor, y_OT: Tensor) -> None:
        """Add it, in place, to a product's output."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ByColumn(Corrections):
    """Each column has an adapter of its own, or none; where all have the same one, nothing needs to be masked."""

    stack: Stack
    columns: tuple[int | None, ...]

    def add(self, product: Product, x_IT: Tensor, y_OT: Tensor) -> None:
        """Let every rank see every column, and strike out what is not the column's."""
        factors = self.stack.of(product)
        u_AT = multiply(factors.a_AI, x_IT)
        if len(self.stack.slots) > 1 or None in self.columns:
            u_AT.masked_fill_(self.stack.mask(factors, self.columns), 0.0)
        y_OT.add_(multiply(factors.b_OA, u_AT))


@dataclass(frozen=True, slots=True)
class BySpan(Corrections):
    """Stretches of columns go through one adapter each."""

    stacks: tuple[tuple[Span, Stack], ...]

    def add(self, product: Product, x_IT: Tensor, y_OT: Tensor) -> None:
        """Compute each stretch by itself, widened to a size that there is a program for."""
        for span, stack in self.stacks:
            factors = stack.of(product)
            width = min(x_IT.shape[1], n_columns(span.stop - span.start, factors.a_AI))
            left = min(span.start, x_IT.shape[1] - width)
            u_AT = multiply(factors.a_AI, x_IT[:, left : left + width])
            u_AT[:, : span.start - left] = 0.0
            u_AT[:, span.stop - left :] = 0.0
            y_OT[:, left : left + width].add_(multiply(factors.b_OA, u_AT))


class Stacks:
    """The stacks of the last passes; adapters that were changed or taken out are not in them."""

    _N_MAX: Final = 4

    def __init__(self, resident: Mapping[int, Adapter]) -> None:
        """`resident` holds the adapters by slot, and is read at every pass."""
        self._resident = resident
        self._stacks: list[Stack] = []

    def prune(self) -> None:
        """Let go of adapters that are not resident any more."""
        self._stacks = [
            stack
            for stack in self._stacks
            if all(self._resident.get(slot) is adapter for slot, adapter in zip(stack.slots, stack.adapters, strict=True))
        ]

    def refresh(self) -> None:
        """Read all adapters anew: they have been trained meanwhile."""
        self._stacks.clear()

    def by_column(self, columns: Sequence[int | None]) -> Corrections | None:
        """Return what is added to a pass whose columns have these adapters' slots."""
        wanted = {slot for slot in columns if slot is not None}
        return ByColumn(self._stack(wanted, 2 * len(wanted)), tuple(columns)) if wanted else None

    def by_span(self, spans: Sequence[Span]) -> Corrections | None:
        """Return what is added to a pass through these spans."""
        if not spans:
            return None
        slots = {span.adapter for span in spans}
        # those of a single one serve the steps after its prompts too
        stacks = {slot: self._stack({slot}, 1) if len(slots) == 1 else self._made((slot,)) for slot in slots}
        return BySpan(tuple((span, stacks[span.adapter]) for span in spans))

    def _stack(self, wanted: set[int], n_most: int) -> Stack:
        """Return a stack with these adapters, and with no more than so many in all."""
        self.prune()
        for stack in reversed(self._stacks):
            if wanted <= set(stack.slots) and len(stack.slots) <= n_most:
                return stack
        stack = self._made(tuple(sorted(wanted)))
        self._stacks = [*self._stacks[1 - self._N_MAX :], stack]
        return stack

    def _made(self, slots: tuple[int, ...]) -> Stack:
        return Stack(slots, tuple(self._resident[slot] for slot in slots))
