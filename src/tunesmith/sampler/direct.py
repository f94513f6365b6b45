# pyright: basic
"""The slot engine inside a training: on its thread, in its memory, on the adapter that it trains (the port `Drawing`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tunesmith.core.machine import memory_bytes
from tunesmith.domain.ports import Ask, Drawn
from tunesmith.lm.attention import NAME
from tunesmith.lm.load import Base
from tunesmith.lm.lora import LoraModel
from tunesmith.sampler import attention
from tunesmith.sampler.engine import Engine
from tunesmith.sampler.grammar import Grammars
from tunesmith.sampler.request import Request, Token


@dataclass(slots=True)
class _Sample:
    tokens: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])


class DirectSampler:
    """Samples between two optimizer steps; for so long the model has the sampler's attention, after it training's again."""

    def __init__(
        self,
        base: Base,
        lora: LoraModel,
        *,
        slot: int,
        start_slot: int | None,
        context_length: int,
        stop_ids: frozenset[int],
        folder: Path,
    ) -> None:
        self._model: Any = base.model
        self._slot, self._start_slot = slot, start_slot
        self._stop_ids = stop_ids
        self._engine = Engine(base, lora, context_length=context_length, cache_bytes=_cache_bytes(base.device))
        self._grammars = Grammars(folder / "tokenizer.json", base.head.weight_VC.shape[0])
        self._model.set_attn_implementation(NAME)

    def draw(self, asks: Sequence[Ask], on_drawn: Callable[[Drawn], None], *, stop: Callable[[], bool]) -> bool:
        """Draw the samples and hand each out as soon as it ends; False when `stop` said so meanwhile.

        Raises:
            PromptTooLong: a prompt and its answer do not fit.
            GrammarBroken: a grammar cannot be followed from its begin.
        """
        requests = [self._request(number, ask, on_drawn) for number, ask in enumerate(asks)]
        self._model.set_attn_implementation(attention.NAME)
        try:
            return self._engine.work_off(requests, stop=stop)
        finally:
            self._model.set_attn_implementation(NAME)

    def _request(self, number: int, ask: Ask, on_drawn: Callable[[Drawn], None]) -> Request:
        samples = [_Sample() for _ in range(ask.n)]

        def emit(news: list[Token] | Exception) -> None:
            if isinstance(news, Exception):
                raise news
            for token in news:
                sample = samples[token.index]
                sample.tokens.append(token.token)
                sample.logprobs.append(token.logprob)
                if token.finish is not None:
                    on_drawn(Drawn(number, token.index, sample.tokens, sample.logprobs, token.finish))

        return Request(
            prompt=ask.prompt,
            emit=emit,
            n=ask.n,
            max_tokens=ask.max_tokens,
            temperature=ask.temperature,
            seed=ask.seed,
            stop_ids=self._stop_ids,
            slot=self._slot if ask.tuned else self._start_slot,
            cuts_broken=True,
            matcher=None if ask.grammar is None else self._grammars.matcher(ask.grammar, self._stop_ids),
        )


def _cache_bytes(device: torch.device) -> int:
    """Return how much memory samples may take: a quarter of what a GPU has left, or an eighth of the machine's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 4
    return memory_bytes() // 8
