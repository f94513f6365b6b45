"""Training side by side with TRL: same rows, same order, same model, same LoRA, one thread.

    python -m benchmarks.methods                          # five rounds of every work, then the tables
    python -m benchmarks.methods chats dpo --rounds 1 --only trl-best

Each measured run is a process of its own with one thread. Ours goes through the product's own door (`worker.train.run`). A
round measures each side once, one after the other, in alternating order; ratios are taken within a round, and their median
and range over the rounds are told, so that a machine that is busy for a while slows both sides of a ratio.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.methods import jobs, ours, table
from benchmarks.methods.watch import Stopwatch
from benchmarks.methods.works import WORKS, Work

OURS = "tunesmith"
Round = dict[str, dict[str, float]]


def one(work: Work, side: str, folder: Path) -> None:
    """Measure one run in this process and print its figures as a line of JSON."""
    watch = Stopwatch()
    if side == OURS:
        ours.run(work, folder, watch)
    else:
        from benchmarks.methods import peer

        peer.run(work, folder, watch, work.peers[side])
    print("FIGURES " + json.dumps(watch.figures(work.stretches)))


def measured(work: Work, side: str, folder: Path) -> dict[str, float]:
    """Run a side of a work in a fresh process with one thread."""
    command = [sys.executable, "-m", "benchmarks.methods", work.name, "--one", side, "--folder", str(folder)]
    environment = os.environ | jobs.ONE_THREAD | {"BENCH_BORN": str(time.time())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("FIGURES "):
            return json.loads(line.removeprefix("FIGURES "))
    raise RuntimeError(f"{side} failed in {work.name}:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")


def rounds(work: Work, names: list[str], n_rounds: int) -> list[Round]:
    """Measure a work so many times, ours and each peer once in each round."""
    found: list[Round] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        work.build(folder)
        ours.prove(folder)
        for number in range(n_rounds):
            sides = [OURS, *names]
            figures = {side: measured(work, side, folder) for side in (sides if number % 2 else reversed(sides))}
            print(json.dumps({"work": work.name, "round": number + 1, **figures}), flush=True)
            found.append(figures)
    return found


def main() -> int:
    """Run the rounds and print the tables."""
    parser = argparse.ArgumentParser(prog="benchmarks.methods")
    parser.add_argument("works", nargs="*", choices=[*WORKS, jobs.NAME, []], metavar="work")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", metavar="PEER")
    parser.add_argument("--one", metavar="SIDE", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(WORKS[arguments.works[0]], arguments.one, arguments.folder)
        return 0
    rates: list[str] = []
    costs: list[str] = []
    together = ""
    for name in arguments.works or [*WORKS, jobs.NAME]:
        if name == jobs.NAME:
            together = jobs.table(jobs.rounds(arguments.rounds))
            continue
        work = WORKS[name]
        peers = [peer for peer in work.peers if not arguments.only or peer in arguments.only]
        found = rounds(work, peers, arguments.rounds)
        rates += table.rates(work, peers, found, OURS)
        costs += table.costs(work, peers, found, OURS)
    if rates:
        print("\n".join([*table.RATES, *rates, "", *table.COSTS, *costs, ""]))
    print(together)
    return 0


if __name__ == "__main__":
    sys.exit(main())
