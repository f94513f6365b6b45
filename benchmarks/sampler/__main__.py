"""Sampling side by side, in one run on one machine: tokens a second, time to the first token, and what else it costs.

    python -m benchmarks.sampler                                   # all of it
    python -m benchmarks.sampler --base nano --rows 1 8 --rounds 3 # part of it
    python -m benchmarks.sampler --only extras                     # schema, cold load of an adapter, log-probabilities

Greedy, one thread, the same prompts and number of tokens. Within a round the sides take turns, in alternating order; ratios
are taken within a round, of processor time. llama.cpp is measured where `llama_cpp` can be imported
(`pip install llama-cpp-python gguf`).
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.sampler import extras, models
from benchmarks.sampler.sides import Llama, Ours, Prompts, Side, Transformers

TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
N_PROMPT = 128


def prompts_of(n: int, n_vocabulary: int, seed: int) -> Prompts:
    """Return prompts that no round had before."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(10, n_vocabulary, (n, N_PROMPT), generator=generator).tolist()


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of processor time and of wall time that a call takes."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def spread(values: list[float], form: str) -> str:
    """Return the median, and the range in brackets."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def compare(title: str, sides: list[Side], n_vocabulary: int, n_adapters: int, given: argparse.Namespace) -> None:
    """Measure the sides at each number of rows and print a table."""
    for n_rows in given.rows:
        adapters = [None if not n_adapters else row % n_adapters for row in range(n_rows)]
        found: dict[str, list[tuple[float, float, float]]] = {side.name: [] for side in sides}
        for side in sides:
            side.sample(prompts_of(n_rows, n_vocabulary, 1), 4, adapters)
        for number in range(given.rounds):
            prompts = prompts_of(n_rows, n_vocabulary, 100 + number)
            for side in sides if number % 2 else reversed(sides):
                first = timed(partial(side.sample, prompts, 1, adapters))
                whole = timed(partial(side.sample, prompts, given.tokens, adapters))
                found[side.name].append((first[0], *whole))
        for side in sides:
            of = found[side.name]
            ratios = [other[1] / ours[1] for ours, other in zip(found["ours"], of, strict=True)]
            walls = [other[2] / ours[2] for ours, other in zip(found["ours"], of, strict=True)]
            rates = [n_rows * given.tokens / o[1] for o in of]
            print(
                f"| {title} | {n_rows} | {n_adapters} | {side.name} | {spread(rates, '.0f')} "
                f"| {spread(ratios, '.2f')} | {statistics.median(walls):.2f} | {spread([1000 * o[0] for o in of], '.1f')} |",
                flush=True,
            )


def main() -> None:
    """Measure and print tables."""
    arguments = argparse.ArgumentParser(prog="benchmarks.sampler", description=__doc__)
    arguments.add_argument("--base", nargs="+", choices=["nano", "half-billion"], default=["nano", "half-billion"])
    arguments.add_argument("--type", choices=[*TYPES], default="bf16")
    arguments.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32])
    arguments.add_argument("--adapters", type=int, nargs="+", default=[0, 1, 8])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--tokens", type=int, default=64)
    arguments.add_argument("--only", choices=["rates", "extras"])
    given = arguments.parse_args()
    torch.set_num_threads(1)
    dtype = TYPES[given.type]
    for name in given.base if given.only != "extras" else ():
        print(f"{name}, {given.type}, {N_PROMPT} + {given.tokens} tokens")
        print("| base | rows | adapters | side | tokens a CPU s | its CPU time in ours | wall | first token, CPU ms |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for n_adapters in given.adapters:
            with tempfile.TemporaryDirectory() as scratch:
                ours = Ours(models.make(name, dtype), n_adapters)
                theirs = models.make(name, dtype)
                sides: list[Side] = [ours, Transformers(theirs, n_adapters)]
                if not n_adapters:
                    sides.append(Transformers(theirs, 0, static=True))
                    if importlib.util.find_spec("llama_cpp") and importlib.util.find_spec("gguf"):
                        models.write_gguf(theirs, Path(scratch) / "base.gguf", dtype)
                        sides.append(Llama(Path(scratch) / "base.gguf", max(given.rows)))
                compare(name, sides, ours.base.head.weight_VC.shape[0], n_adapters, given)
                ours.stop()
                del ours, theirs, sides
    if given.only != "rates":
        extras.show(given.rounds)


if __name__ == "__main__":
    main()
