"""Sampling: tokens a second and time to the first token of the slot engine, beside transformers' own `generate`.

Same base, same prompts, same number of tokens, greedy, the same type and threads on both sides; pairs in turn, so that a
noisy machine hits both. `generate` gets its batch at once, padded; the engine gets single requests.
"""

import argparse
import queue
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

import tunesmith
from tunesmith.data.folder import read_folder
from tunesmith.lm.load import load
from tunesmith.lm.lora import LoraModel
from tunesmith.sampler.engine import Engine
from tunesmith.sampler.request import Request, Token

NANO = Path(tunesmith.__file__).parent / "bases" / "tunesmith-nano"


def prompts(n: int, length: int, n_vocab: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(10, n_vocab, (n, length), generator=generator).tolist()


def ours(engine: Engine, batch: list[list[int]], n_tokens: int) -> tuple[float, float]:
    """Return seconds until the first token of the last request to have one, and in all."""
    news: queue.SimpleQueue[list[Token] | Exception] = queue.SimpleQueue()
    began, first_s, n_open, n_begun = time.perf_counter(), 0.0, len(batch), 0
    seen: dict[int, bool] = {}

    def emit(number: int) -> Callable[[list[Token] | Exception], None]:
        def put(item: list[Token] | Exception) -> None:
            if number not in seen:
                seen[number] = True
            news.put(item)

        return put

    for number, prompt in enumerate(batch):
        engine.submit(Request(prompt, emit(number), max_tokens=n_tokens, temperature=0.0))
    while n_open:
        item = news.get()
        if isinstance(item, Exception):
            raise item
        if n_begun < len(batch) and len(seen) > n_begun:
            n_begun, first_s = len(seen), time.perf_counter() - began
        n_open -= sum(token.finish is not None for token in item)
    return first_s, time.perf_counter() - began


def theirs(model: torch.nn.Module, batch: list[list[int]], n_tokens: int) -> tuple[float, float]:
    """Return seconds for one token of each prompt, and for all of them."""
    took: list[float] = []
    for n in (1, n_tokens):
        began = time.perf_counter()
        ids = torch.tensor(batch)
        model.generate(  # type: ignore[operator]  # a transformers model
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=0
        )
        took.append(time.perf_counter() - began)
    return took[0], took[1]


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):8.1f} ({min(values):.1f}-{max(values):.1f})"


def main() -> None:
    """Measure and print a table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--base", type=Path, default=NANO)
    arguments.add_argument("--pairs", type=int, default=5)
    arguments.add_argument("--tokens", type=int, default=64)
    arguments.add_argument("--prompt", type=int, default=128)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    base = load(given.base, device=torch.device("cpu"), dtype=torch.float32)
    folder = read_folder(given.base)
    engine = Engine(base, LoraModel(base.model), context_length=folder.context_length)
    engine.start()
    model = AutoModelForCausalLM.from_pretrained(given.base, dtype=torch.float32).eval()
    size = f"{folder.n_parameters / 1e6:.1f} M parameters, fp32, {given.threads} thread(s)"
    print(f"{size}, {given.prompt} + {given.tokens} tokens")
    print("rows | tokens/s: ours, transformers, ratio of pairs | first token, ms: ours, transformers")
    for n_rows in given.batches:
        batch = prompts(n_rows, given.prompt, int(folder.config["vocab_size"]))
        ours(engine, batch, 4)
        theirs(model, batch, 4)
        pairs = [(ours(engine, batch, given.tokens), theirs(model, batch, given.tokens)) for _ in range(given.pairs)]
        n_tokens = n_rows * given.tokens
        columns = [
            [n_tokens / mine[1] for mine, _ in pairs],
            [n_tokens / other[1] for _, other in pairs],
            [other[1] / mine[1] for mine, other in pairs],
            [1000 * mine[0] for mine, _ in pairs],
            [1000 * other[0] for _, other in pairs],
        ]
        print(f"{n_rows:4} | " + " | ".join(spread(column) for column in columns), flush=True)
    engine.stop()


if __name__ == "__main__":
    main()
