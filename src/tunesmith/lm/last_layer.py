# pyright: basic
"""The last layer computes its MLP only at the tokens that are asked for: nobody reads its other outputs.

Attention of the last layer needs every token's keys and values, but what follows works token by token. Where a quarter of
the tokens is trained, three quarters of the last MLP are saved; results and gradients are the same.

Shapes: T tokens of the row, N asked tokens, C hidden size.
"""

from typing import Any, Final

import torch
from torch import Tensor, nn

from tunesmith.lm.lora import Route, Span

#: Parts that tell a mixture of experts, whose routing is left alone.
_ROUTING: Final = frozenset({"experts", "gate", "router"})


class AskedOnly(nn.Module):
    """A module that works token by token, led past the tokens that nobody asks for; their outputs are zero."""

    def __init__(self, inner: nn.Module, route: Route) -> None:
        super().__init__()
        self.inner, self.route = inner, route

    def forward(self, hidden_1TC: Tensor) -> Tensor:
        """Return the inner module's outputs at `route.asked_N` (everywhere when that is None)."""
        asked_N, spans = self.route.asked_N, self.route.spans
        if asked_N is None:
            return self.inner(hidden_1TC)
        self.route.spans = counted_in_asked(spans, asked_N, hidden_1TC.shape[1])
        try:
            output_1NC = self.inner(hidden_1TC.index_select(1, asked_N))
        finally:
            self.route.spans = spans
        return torch.zeros_like(hidden_1TC).index_copy(1, asked_N, output_1NC)


def counted_in_asked(spans: tuple[Span, ...], asked_N: Tensor, n_tokens: int) -> tuple[Span, ...]:
    """Return the spans of a row of `n_tokens` counted in asked tokens instead of all tokens."""
    if len(spans) == 1 and (spans[0].start, spans[0].stop) == (0, n_tokens):
        return (Span(spans[0].adapter, 0, len(asked_N)),)  # one job is the normal case, and a GPU need not be waited for
    edges = torch.tensor([edge for span in spans for edge in (span.start, span.stop)], device=asked_N.device)
    places = torch.searchsorted(asked_N, edges).tolist()
    return tuple(Span(span.adapter, places[2 * i], places[2 * i + 1]) for i, span in enumerate(spans))


def trim(decoder: Any, route: Route) -> bool:
    """Put `AskedOnly` around the MLP of a decoder's last layer; return whether there is a plain one to be found."""
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return False
    last: Any = layers[-1]
    mlp = getattr(last, "mlp", None)
    if not isinstance(mlp, nn.Module) or _ROUTING & {name for name, _ in mlp.named_children()}:
        return False
    last.mlp = AskedOnly(mlp, route)
    return True
