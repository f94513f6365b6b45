# pyright: basic
"""The forward pass of decoders of Llama's form on a CPU, by layers of our own in the place of transformers' modules.

It is taken where it gives the modules' own hidden states on a few tokens, and for rows that its attention is made for.

Shapes: T tokens of the row, N of them asked for, C hidden size.
"""

from typing import Any, Final

import structlog
import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.lm.attention import Layout, Piece
from tunesmith.lm.blocks import blocks
from tunesmith.lm.form import Form, recognise
from tunesmith.lm.last_layer import counted_in_asked
from tunesmith.lm.layer import Layer, Normalised, Parts, Row, Work
from tunesmith.lm.load import Base
from tunesmith.lm.lora import LoraModel, Span

log = structlog.get_logger()

#: How far its hidden states may lie from the modules' own, as relative L2.
_TOLERANCE: Final = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
#: Documents that it is proven on, one of them a stem with two branches: as many tokens as the smallest block has rows.
_PROOF: Final[tuple[Piece, ...]] = (37, (13, 9, 5))


class Forward:
    """A decoder of Llama's form."""

    def __init__(self, form: Form, lora: LoraModel, window: int | None) -> None:
        """Prepare for rows whose documents have at most `window` tokens."""
        self._form, self._lora, self._window = form, lora, window
        self._layers = [Parts(layer) for layer in form.layers]

    def takes(self, lengths: tuple[Piece, ...]) -> bool:
        """Whether no document of a row is longer than any layer sees back."""
        longest = max(piece if isinstance(piece, int) else piece[0] + max(piece[1:], default=0) for piece in lengths)
        return self._window is None or longest <= self._window

    def __call__(
        self, tokens_T: Tensor, positions_T: Tensor, lengths: tuple[Piece, ...], spans: tuple[Span, ...], asked_N: Tensor
    ) -> Tensor:
        """Return the last hidden states of the asked tokens (N, C)."""
        x_TC = F.embedding(tokens_T, self._form.embedding_VC)
        rotary: Any = self._form.rotary
        cos_1TD, sin_1TD = rotary(x_TC[None], position_ids=positions_T[None])
        row = Row(
            cos_T1D=cos_1TD[0, :, None].float(),
            sin_T1D=sin_1TD[0, :, None].float(),
            lengths=lengths,
            blocks=tuple(blocks(len(tokens_T), spans)),
            asked_N=asked_N,
            asked_blocks=tuple(blocks(len(asked_N), counted_in_asked(spans, asked_N, len(tokens_T)))),
            adapters={span.adapter: self._lora.route.slots[span.adapter] for span in spans},
        )
        for parts in self._layers:
            work = Work(parts, row, asked=parts is self._layers[-1])
            x_TC: Any = Layer.apply(x_TC, work, *work.parameters())
        return Normalised.apply(x_TC, self._form.norm)  # type: ignore[return-value]  # autograd functions are untyped


def own_forward(base: Base, lora: LoraModel) -> Forward | None:
    """Return the forward pass of our own for a model, which is sought once; None where there is none."""
    if not lora.own_sought:
        lora.own_sought = True
        form = recognise(base.decoder) if base.device.type == "cpu" else None
        lora.own = None if form is None else _proven(form, base, lora)
    return lora.own


@torch.no_grad()
def _proven(form: Form, base: Base, lora: LoraModel) -> Forward | None:
    generator = torch.Generator().manual_seed(0)
    positions_T = torch.cat([torch.arange(start, start + n) for start, n in ((0, 37), (0, 13), (13, 9), (13, 5))])
    tokens_T = torch.randint(base.head.weight_VC.shape[0], positions_T.shape, generator=generator)
    windows: list[int] = []

    def watch(_: Any, knobs: dict[str, Any]) -> None:
        if knobs["sliding_window"] is not None:
            windows.append(knobs["sliding_window"])

    route = lora.route
    spans, asked_N, route.spans, route.asked_N = route.spans, route.asked_N, (), None
    try:
        theirs_TC = base.hidden(tokens_T, positions_T, Layout(_PROOF, watch=watch)).float()
    finally:
        route.spans, route.asked_N = spans, asked_N
    own = Forward(form, lora, min(windows, default=None))
    if not own.takes(_PROOF):
        return None
    ours_TC = own(tokens_T, positions_T, _PROOF, (), torch.arange(len(tokens_T))).float()
    distance = float((ours_TC - theirs_TC).norm() / theirs_TC.norm().clamp(min=1e-9))
    if distance <= _TOLERANCE.get(base.dtype, 0.0):
        return own
    log.warning("lm.modules", model=type(base.model).__name__, distance=distance)
    return None
