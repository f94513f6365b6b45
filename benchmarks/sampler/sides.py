"""Who samples: each side gets the same prompts and answers them greedily, with the same number of tokens, on one thread."""

import ctypes
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from tunesmith.lm.load import wrap
from tunesmith.lm.lora import LoraModel
from tunesmith.sampler.engine import Engine
from tunesmith.sampler.request import Request, Token

Prompts = list[list[int]]
CONTEXT = 2048
RANK = 16


class Side(Protocol):
    """Something that samples."""

    name: str

    def sample(self, prompts: Prompts, n_tokens: int, adapters: list[int | None]) -> None:
        """Sample so many tokens after each prompt, each through its adapter."""
        ...


def adapter_of(lora: LoraModel, number: int) -> Any:
    """Return adapter `number` of a base: random factors, so that it changes what is said."""
    adapter = lora.fresh(seed=number, rank=RANK)
    generator = torch.Generator().manual_seed(number)
    for pair in adapter.pairs.values():
        pair.b_OR.data.normal_(0, 0.01, generator=generator)
    adapter.sync()
    return adapter


class Ours:
    """The slot engine: each prompt is a request of its own."""

    name = "ours"

    def __init__(self, model: Any, n_adapters: int) -> None:
        self.base = wrap(model)
        self.lora = LoraModel(model)
        self.engine = Engine(self.base, self.lora, context_length=CONTEXT)
        for number in range(n_adapters):
            self.lora.place(number, adapter_of(self.lora, number))
        self.engine.start()

    def sample(self, prompts: Prompts, n_tokens: int, adapters: list[int | None]) -> None:
        self.ask(
            [
                Request(p, _nobody, max_tokens=n_tokens, temperature=0.0, slot=a)
                for p, a in zip(prompts, adapters, strict=True)
            ]
        )

    def ask(self, requests: list[Request]) -> int:
        """Answer requests and return how many tokens they got."""
        news: queue.SimpleQueue[list[Token] | Exception] = queue.SimpleQueue()
        for request in requests:
            request.emit = news.put
            self.engine.submit(request)
        n_open, n_tokens = len(requests), 0
        while n_open:
            item = news.get()
            if isinstance(item, Exception):
                raise item
            n_tokens += len(item)
            n_open -= sum(token.finish is not None for token in item)
        return n_tokens

    def stop(self) -> None:
        """End the engine's thread."""
        self.engine.stop()


def _nobody(_: object) -> None:
    """Stand in for who is told, until that is known."""


class Transformers:
    """`generate` with its batch at once, with its default cache or the static one; adapters through PEFT."""

    def __init__(self, model: Any, n_adapters: int, *, static: bool = False) -> None:
        self.name = "transformers, static cache" if static else "transformers"
        self._more: dict[str, Any] = {"cache_implementation": "static", "disable_compile": True} if static else {}
        self._model, self._n_adapters = model.eval(), n_adapters
        if n_adapters:
            from peft import LoraConfig, get_peft_model

            config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", init_lora_weights=False)
            self._model = get_peft_model(model, config, adapter_name="0").eval()
            for number in range(1, n_adapters):
                self._model.add_adapter(f"{number}", config)
            self._model.to(model.dtype)

    def sample(self, prompts: Prompts, n_tokens: int, adapters: list[int | None]) -> None:
        ids = torch.tensor(prompts)
        more = dict(self._more)
        if self._n_adapters > 1:
            more["adapter_names"] = ["__base__" if number is None else f"{number}" for number in adapters]
        self._model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=n_tokens, min_new_tokens=n_tokens,
            do_sample=False, pad_token_id=0, **more,
        )  # fmt: skip


class Llama:
    """llama.cpp through its Python package: all prompts as sequences of one batch. It has one mix of adapters a batch."""

    name = "llama.cpp"

    def __init__(self, file: Path, n_rows: int) -> None:
        import llama_cpp as c

        self._c: Any = c
        c.llama_backend_init()
        c.llama_log_set(_SILENT, ctypes.c_void_p(0))
        self._model = c.llama_model_load_from_file(str(file).encode(), c.llama_model_default_params())
        wanted = c.llama_context_default_params()
        wanted.n_ctx, wanted.n_batch, wanted.n_ubatch, wanted.n_seq_max = 256 * n_rows, 4096, 512, n_rows
        wanted.n_threads = wanted.n_threads_batch = 1
        self._context = c.llama_init_from_model(self._model, wanted)
        self._sampler = c.llama_sampler_init_greedy()
        self._batch = c.llama_batch_init(4096, 0, 1)

    def sample(self, prompts: Prompts, n_tokens: int, adapters: list[int | None]) -> None:
        del adapters
        c, context = self._c, self._context
        c.llama_memory_clear(c.llama_get_memory(context), True)
        self._decode([(t, p, row, p == len(prompt) - 1) for row, prompt in enumerate(prompts) for p, t in enumerate(prompt)])
        ends, end = [], -1
        for prompt in prompts:
            end += len(prompt)
            ends.append(end)
        for step in range(n_tokens):
            said = [c.llama_sampler_sample(self._sampler, context, place) for place in ends]
            if step + 1 < n_tokens:
                self._decode([(said[row], len(prompt) + step, row, True) for row, prompt in enumerate(prompts)])
                ends = list(range(len(prompts)))

    def _decode(self, row: list[tuple[int, int, int, bool]]) -> None:
        batch = self._batch
        batch.n_tokens = len(row)
        for place, (token, position, sequence, asked) in enumerate(row):
            batch.token[place], batch.pos[place], batch.logits[place] = token, position, asked
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
        if self._c.llama_decode(self._context, batch):
            raise RuntimeError("llama.cpp could not decode the batch")


def _silent() -> Any:
    try:
        import llama_cpp
    except ImportError:
        return None
    quiet: Callable[..., None] = lambda *_: None  # noqa: E731 - a callback of C
    return llama_cpp.llama_log_callback(quiet)


#: Kept for as long as llama.cpp may call it.
_SILENT = _silent()
