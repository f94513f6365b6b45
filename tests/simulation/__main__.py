"""`python -m simulation SEED` tells one seed's story; `python -m simulation FIRST N` plays N seeds on every core.

The first seed that fails is told and ends the run with 1. Run it in `tests`, or with `PYTHONPATH=tests`.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from simulation import chaos
from tunesmith.core.machine import n_cores

CHUNK = 100


def play(first: int, n_seeds: int) -> chaos.Failure | None:
    """Play seeds on every core; return the lowest failure of the first chunk that has one."""
    chunks = range(first, first + n_seeds, CHUNK)
    with ProcessPoolExecutor(n_cores(), mp_context=get_context("spawn")) as pool:
        for failure in pool.map(_play_chunk, chunks, [min(CHUNK, first + n_seeds - chunk) for chunk in chunks]):
            if failure is not None:
                pool.shutdown(cancel_futures=True)
                return failure
    return None


def _play_chunk(first: int, n_seeds: int) -> chaos.Failure | None:
    return next((failure for seed in range(first, first + n_seeds) if (failure := chaos.run(seed))), None)


def main(arguments: list[str]) -> int:
    """Tell a seed, or play many."""
    if len(arguments) == 1:
        failure = chaos.run(int(arguments[0]))
        sys.stdout.write(f"{failure or chaos.story(int(arguments[0]))}\n")
        return int(failure is not None)
    failure = play(int(arguments[0]), int(arguments[1]))
    sys.stdout.write(f"{failure}\n" if failure else f"{arguments[1]} seeds from {arguments[0]}: every law held\n")
    return int(failure is not None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
