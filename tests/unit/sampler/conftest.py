"""Tiny bases and adapters with random weights, and an engine at work over them."""

import hashlib
import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, LlamaConfig, Qwen3Config
from transformers.utils import logging

from tunesmith.lm import attention
from tunesmith.lm.adapter_file import WEIGHTS, to_files
from tunesmith.lm.load import Base, wrap
from tunesmith.lm.lora import LoraModel
from tunesmith.sampler.engine import Engine
from tunesmith.sampler.request import Request, Token

N_VOCAB = 97
N_CONTEXT = 128
FAMILIES = ("llama", "qwen3", "gemma2", "gemma3_text")

_SHAPE: dict[str, Any] = {
    "vocab_size": N_VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": N_CONTEXT, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0,
}  # fmt: skip
_WINDOWS: dict[str, Any] = {
    "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "query_pre_attn_scalar": 16,
}
_CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**_SHAPE, attention_bias=True, tie_word_embeddings=False),
    "qwen3": lambda: Qwen3Config(**_SHAPE, tie_word_embeddings=True),
    "gemma2": lambda: Gemma2Config(**_SHAPE, **_WINDOWS, attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
    "gemma3_text": lambda: Gemma3TextConfig(**_SHAPE, **_WINDOWS),
}


def tiny(family: str, attn: str = attention.NAME) -> Any:
    """Return the family's model, the same weights at every call, large enough that every setting matters."""
    attention.register()
    logging.set_verbosity_error()
    model = AutoModelForCausalLM.from_config(_CONFIGS[family](), attn_implementation=attn, dtype=torch.float32)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.3, generator=generator)
        else:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.tie_weights()
    return model.eval()


@dataclass
class Said:
    """What the engine told about one request."""

    news: "queue.SimpleQueue[list[Token] | Exception]" = field(default_factory=queue.SimpleQueue)

    def tokens(self, n: int = 1) -> list[list[Token]]:
        """Wait until `n` samples have ended and return them, and behind them the prompt's tokens; an error is raised."""
        samples: list[list[Token]] = [[] for _ in range(n + 1)]
        while not all(sample and sample[-1].finish for sample in samples[:n]):
            item = self.news.get(timeout=60)
            if isinstance(item, Exception):
                raise item
            for token in item:
                samples[token.index].append(token)
        return samples if samples[-1] else samples[:n]

    def ids(self) -> list[int]:
        return [token.token for token in self.tokens()[0]]


@dataclass
class Bench:
    """An engine over a tiny base."""

    engine: Engine
    base: Base
    lora: LoraModel

    def ask(self, prompt: list[int], **wishes: Any) -> tuple[Request, Said]:
        said = Said()
        request = Request(prompt, said.news.put, **wishes)
        self.engine.submit(request)
        return request, said

    def greedy(self, prompt: list[int], max_tokens: int = 12, **wishes: Any) -> list[int]:
        return self.ask(prompt, max_tokens=max_tokens, temperature=0.0, **wishes)[1].ids()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make_engine() -> Iterator[Callable[..., Bench]]:
    """Return a function that starts an engine over a family's tiny model."""
    begun: list[Engine] = []

    def make(family: str = "llama", **knobs: Any) -> Bench:
        base = wrap(tiny(family))
        lora = LoraModel(base.model)
        engine = Engine(base, lora, context_length=N_CONTEXT, **knobs)
        engine.start()
        begun.append(engine)
        return Bench(engine, base, lora)

    yield make
    for engine in begun:
        engine.stop()


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., tuple[str, Path, str]]:
    """Return a function that writes a random adapter in PEFT's format and returns its name, folder and sha256."""

    def make(family: str = "llama", seed: int = 0) -> tuple[str, Path, str]:
        lora = LoraModel(tiny(family))
        adapter = lora.fresh(seed=seed, rank=8, alpha=16)
        generator = torch.Generator().manual_seed(seed)
        for pair in adapter.pairs.values():
            pair.b_OR.data.normal_(0, 0.3, generator=generator)
        folder = tmp_path / f"{family}-{seed}"
        folder.mkdir()
        for name, content in to_files(adapter, base_name=family).items():
            (folder / name).write_bytes(content)
        return f"{family}-{seed}", folder, hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()

    return make


def prompts(n: int, seed: int = 0, *, shortest: int = 3, longest: int = 30) -> list[list[int]]:
    """Return prompts of mixed lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest + 1, (n,), generator=generator).tolist()
    return [torch.randint(3, N_VOCAB, (length,), generator=generator).tolist() for length in lengths]


@pytest.fixture
def make_prompts() -> Callable[..., list[list[int]]]:
    return prompts


@pytest.fixture
def reference() -> Callable[..., Any]:
    """Return a function that builds the family's model as transformers has it."""
    return lambda family: tiny(family, attn="eager")
