"""How soon trainings go on after a `kill -9`: of the server (they are adopted), and of a worker (its job starts again).

A real server on the embedded base with its warm spares, and the `openai` client. *Adopted* is when, after the new server's
process was started, a later step can be read of every job, with the very processes of before. *Again* is when, after
the worker's death, the job's next attempt has taken a step (its report file tells), and when a step can be read that the
first attempt had not taken: up to 19 steps are done again. With a spare that is ready, and in a server without spares.

    python -m benchmarks.lifecycle.recovery [--rounds 10] [--jobs 4]
"""

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._server import end_with_the_benchmark
from benchmarks.lifecycle.equality import House
from benchmarks.lifecycle.kills import kill, upload
from tunesmith.core.channel import METRICS
from tunesmith.supervisor import tree

LONGEST_S = 60.0


def n_steps(house: House, job: str) -> int:
    """Return how many steps of a job can be read."""
    newest = house.client.fine_tuning.jobs.list_events(job, limit=1).data[0]
    return int(newest.data["step"]) if newest.type == "metrics" and isinstance(newest.data, dict) else 0


def wait_for_steps(house: House, after: dict[str, int]) -> bool:
    """Wait until every job has taken a later step; False when that took too long."""
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        if all(n_steps(house, job) > step for job, step in after.items()):
            return True
        time.sleep(0.01)
    return False


def restarted(house: House, jobs: list[str]) -> tuple[float, float, int]:
    """Kill and start the server; return the seconds to its readiness and to the last job's next step, and who lives on."""
    before = {job: n_steps(house, job) for job in jobs}
    trees = {job: set(tree.tagged(job)) for job in jobs}
    house.server.process.kill()
    house.server.close()
    began = time.monotonic()
    house.start()
    ready_s = time.monotonic() - began
    wait_for_steps(house, before)
    took_s = time.monotonic() - began
    return ready_s, took_s, sum(trees[job] == set(tree.tagged(job)) for job in jobs)


def again(house: House, job: str) -> tuple[float, float]:
    """Kill a job's worker; return the seconds to its next attempt's first step, and to a step that was not taken before."""
    attempts = house.folder / "data" / "attempts" / job
    n_attempts = len(list(attempts.iterdir()))
    while not kill("worker", {job}, random.Random(0)):
        time.sleep(0.05)
    began, before = time.monotonic(), 0
    while len(list(attempts.iterdir())) == n_attempts:
        before = max(before, n_steps(house, job))
    while not has_stepped(attempts):
        time.sleep(0.005)
    first_s = time.monotonic() - began
    wait_for_steps(house, {job: before})
    return first_s, time.monotonic() - began


def has_stepped(attempts: Path) -> bool:
    """Say whether the newest attempt has reported a step."""
    newest = max(attempts.iterdir(), key=lambda attempt: int(attempt.name))
    with contextlib.suppress(FileNotFoundError):
        return f'"{METRICS}"' in (newest / "spool.jsonl").read_text()
    return False


def regain(house: House, file: str, n_rounds: int, *, spares: int) -> list[tuple[float, float]]:
    """Return the seconds of `again` for one job after another, with so many spares ready each time."""
    took: list[tuple[float, float]] = []
    for _ in range(n_rounds):
        job = house.create(file, n_epochs=50)
        wait_for_steps(house, {job: 0})
        wait_for_spares(house, spares)
        took.append(again(house, job))
        house.client.fine_tuning.jobs.cancel(job)
    return took


def wait_for_spares(house: House, n: int) -> None:
    """Wait until so many spares are ready."""
    root, end = house.server.url.removesuffix("/v1"), time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        spares = house.client.get(f"{root}/tunesmith/v1/spares", cast_to=dict[str, Any])
        if sum(spare["status"] == "ready" for spare in spares["data"]) >= n:
            return
        time.sleep(0.1)
    raise TimeoutError(f"no {n} spares after {LONGEST_S} s")


def line(name: str, seconds: list[float]) -> str:
    """Return a line of the table."""
    return f"| {name} | {len(seconds)} | {statistics.median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f} |"


def main() -> int:
    """Measure and print a table; return 1 if an attempt was not adopted."""
    end_with_the_benchmark()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=4)
    asked = parser.parse_args()
    long = {"TUNESMITH_TRAINING_SLOTS": str(asked.jobs), "TUNESMITH_FAILPOINTS": "train.step=sleep:0.15"}
    long["TUNESMITH_WARM_SPARES"] = "1"
    ready: list[float] = []
    adopted: list[float] = []
    n_alive = 0
    with tempfile.TemporaryDirectory() as name:
        house = House(Path(name), **long)
        file = upload(house.client)
        jobs = [house.create(file, n_epochs=50) for _ in range(asked.jobs)]
        wait_for_steps(house, dict.fromkeys(jobs, 0))
        for _ in range(asked.rounds):
            ready_s, took_s, n = restarted(house, jobs)
            ready.append(ready_s)
            adopted.append(took_s)
            n_alive += n
            time.sleep(2.5)
        for job in jobs:
            house.client.fine_tuning.jobs.cancel(job)
        warm = regain(house, file, asked.rounds, spares=2)
        house.server.end()
    with tempfile.TemporaryDirectory() as name:
        house = House(Path(name), **long | {"TUNESMITH_WARM_SPARES": "0"})
        cold = regain(house, upload(house.client), asked.rounds, spares=0)
        house.server.end()
    print("| seconds | n | median | shortest | longest |\n|---|---|---|---|---|")
    print(line("server started to ready", ready))
    print(line(f"server started to a new step of each of {asked.jobs} jobs", adopted))
    for spares, took in (("with a spare", warm), ("without", cold)):
        first, new = zip(*took, strict=True)
        print(line(f"worker killed to its next attempt's first step, {spares}", list(first)))
        print(line(f"to a step that was not taken before, {spares}", list(new)))
    print(f"\nadopted with all their processes: {n_alive} of {asked.rounds * asked.jobs}")
    return int(n_alive < asked.rounds * asked.jobs)


if __name__ == "__main__":
    sys.exit(main())
