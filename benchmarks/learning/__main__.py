"""What is learned beside TRL's trainers: held-out loss and reward after the same examples, three seeds of three small tasks.

    python -m benchmarks.learning                       # every task, then the table
    python -m benchmarks.learning supervised --seeds 1 --same-start

Both sides tune the embedded base on the files of `examples/`: the same token ids in the same order and batches, LoRA of the
same rank, alpha and layers, the same number type, optimizer and learning rate at every step (TRL's trainers are given our
schedule, since transformers' own begins with a step at 0). What differs is each side's own: its random numbers, for the
adapter's beginning and for sampling, and its arithmetic; with `--same-start` both adapters begin alike. Ours goes through
the product's own door (`worker.train.run`). Both adapters are saved in PEFT's format, loaded into our engine and measured
there by the same code.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.learning import ours, peer
from benchmarks.learning.scoring import Scorer
from benchmarks.learning.works import WORKS

OURS, PEER = "tunesmith", "trl"
SEEDS = (1, 2, 3)


def line(name: str, measure: str, more: bool, base: float, mine: list[float], its: list[float]) -> str:
    """Return a line of the table."""
    gain = (statistics.fmean(mine) - statistics.fmean(its)) * (1 if more else -1)
    pooled = (statistics.mean([statistics.variance(mine), statistics.variance(its)])) ** 0.5 if len(mine) > 1 else 0.0
    verdict = "better" if gain > pooled else "within" if gain >= -pooled else "worse"

    def told(values: list[float]) -> str:
        return f"{statistics.fmean(values):.4f} ({', '.join(f'{value:.4f}' for value in values)})"

    return f"| {name} | {measure} | {base:.4f} | {told(mine)} | {told(its)} | {pooled:.4f} | {verdict} |"


def adapters(side: str, names: list[str], seeds: list[int], folder: Path, options: list[str]) -> dict[str, list[Path]]:
    """Train a side's adapters in a process of its own with one thread; return their folders by work, seed by seed."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.learning", *names, "--side", side, "--folder", str(folder), *options]
    done = subprocess.run(
        [*command, "--seeds", *map(str, seeds)], env=environment, capture_output=True, text=True, check=False
    )
    for each in done.stdout.splitlines():
        if each.startswith("ADAPTERS "):
            return {name: list(map(Path, paths)) for name, paths in json.loads(each.removeprefix("ADAPTERS ")).items()}
    raise RuntimeError(f"{side} failed:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")


def main() -> int:
    """Train both sides, measure, and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.learning")
    parser.add_argument("works", nargs="*", choices=[*WORKS, []], metavar="work")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--same-start", action="store_true", help="begin TRL's adapter with the numbers of ours")
    parser.add_argument("--side", choices=[OURS, PEER], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names, seeds = arguments.works or list(WORKS), arguments.seeds
    if arguments.side:
        train = ours.train if arguments.side == OURS else partial(peer.train, same_start=arguments.same_start)
        folder = arguments.folder / arguments.side
        found = {
            name: [str(train(WORKS[name], seed, folder / f"{i}-{seed}")) for seed in seeds] for i, name in enumerate(names)
        }
        print("ADAPTERS " + json.dumps(found))
        return 0
    print("| task | held out | base | ours, mean (each seed) | TRL's | pooled deviation | ours is |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        options = ["--same-start"] if arguments.same_start else []
        sides = {side: adapters(side, names, seeds, Path(scratch), options) for side in (OURS, PEER)}
        scorer = Scorer()
        for name in names:
            work = WORKS[name]
            base = scorer.figures(work, None)
            mine, its = ([scorer.figures(work, path) for path in sides[side][name]] for side in (OURS, PEER))
            for measure, more in work.measures.items():
                both = [each[measure] for each in mine], [each[measure] for each in its]
                print(line(name, measure, more, base[measure], *both), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
