"""How soon trainings go on after a `kill -9`: of the server (they are adopted), and of a worker (its job starts again).

A real server on the embedded base with its warm spares, and the `openai` client. *Adopted* is when, after the new server's
process was started, a later step can be read of every job, with the very processes of before. *Again* is when,
after the worker's death, the next step of its job can be read.

    python -m benchmarks.lifecycle.recovery [--rounds 10] [--jobs 4]
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._server import end_with_the_benchmark
from benchmarks.lifecycle.equality import House
from benchmarks.lifecycle.kills import kill, upload
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


def again(house: House, job: str) -> float:
    """Kill a job's worker; return the seconds to its next step."""
    before = n_steps(house, job)
    while not kill("worker", {job}, random.Random(0)):
        time.sleep(0.05)
    began = time.monotonic()
    while n_steps(house, job) > 0:  # the event of the loss is the newest
        time.sleep(0.005)
    wait_for_steps(house, {job: 0})
    assert n_steps(house, job) >= 1, before
    return time.monotonic() - began


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
    regained: list[float] = []
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
        for job in jobs[1:]:
            house.client.fine_tuning.jobs.cancel(job)
        for _ in range(asked.rounds):
            house.client.fine_tuning.jobs.cancel(jobs[0])
            jobs[0] = house.create(file, n_epochs=50)
            wait_for_steps(house, {jobs[0]: 0})
            time.sleep(10.0)  # a spare is ready again
            regained.append(again(house, jobs[0]))
        house.client.fine_tuning.jobs.cancel(jobs[0])
        house.server.end()
    print("| seconds | n | median | shortest | longest |\n|---|---|---|---|---|")
    print(line("server started to ready", ready))
    print(line(f"server started to a new step of each of {asked.jobs} jobs", adopted))
    print(line("worker killed to its job's next step", regained))
    print(f"\nadopted with all their processes: {n_alive} of {asked.rounds * asked.jobs}")
    return int(n_alive < asked.rounds * asked.jobs)


if __name__ == "__main__":
    sys.exit(main())
