"""Reads by many at once with 100,000 jobs in the table: the most that are answered, and the latency at given loads.

A real server process; the clients are a second process (`_crowd.py`) of raw sockets. Of the requests half retrieve a job, a
fifth list the newest, and a tenth each list after a random job, list by metadata and list a job's events.

    python -m benchmarks.reads [--jobs 100000] [--seconds 10] [--loads 250 500]
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._many_jobs import fill
from benchmarks._server import Server, end_with_the_benchmark

GOAL_RATE = 500.0
GOAL_P99_MS = 20.0
SHARES = {"retrieve": 50, "list": 20, "list after": 10, "list by metadata": 10, "events": 10}
N_CONNECTIONS = 32


def paths(made: list[str]) -> dict[str, list[str]]:
    """Return what is asked for, by kind."""
    some, root = random.Random(0).sample(made[20:], min(2000, len(made) - 20)), "/v1/fine_tuning/jobs"
    return {
        "retrieve": [f"{root}/{job}" for job in some],
        "list": [root],
        "list after": [f"{root}?after={job}" for job in some],
        "list by metadata": [f"{root}?metadata%5Brun%5D={number}" for number in range(100)],
        "events": [f"{root}/{job}/events" for job in some],
    }


def ask(server: Server, made: list[str], *, rate: float, seconds: float, n_connections: int) -> dict[str, list[float]]:
    """Let the crowd ask, print what it saw, and return the milliseconds by kind."""
    wanted = {"port": server.port, "paths": paths(made), "shares": SHARES, "rate": rate, "seconds": seconds}
    used, began = server.cpu_ms(), time.perf_counter()
    crowd = subprocess.run(
        [sys.executable, "-m", "benchmarks._crowd"],
        input=json.dumps({**wanted, "n_connections": n_connections}) + "\n",
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wall, cpu_ms = time.perf_counter() - began, server.cpu_ms() - used
    answer = json.loads(crowd.stdout)
    took: dict[str, list[float]] = {kind: sorted(each) for kind, each in answer["took"].items()}
    n = sum(map(len, took.values()))
    what = f"{rate:.0f} requests/s" if rate else f"as many as it answers, {n_connections} connections"
    print(f"\n{what}: {n / seconds:.0f} requests/s; processor time {cpu_ms / n:.2f} ms of the server a request,")
    print(f"{cpu_ms / 1000:.1f} s of it and {answer['cpu_s']:.1f} s of the clients in {wall:.1f} s\n")
    print("| request | n | p50 | p99 | max |\n|---|---|---|---|---|")
    for kind, each in took.items():
        p50, p99 = each[len(each) // 2], each[int(len(each) * 0.99)]
        print(f"| {kind} | {len(each)} | {p50:.1f} | {p99:.1f} | {each[-1]:.1f} |", flush=True)
    return took


def main() -> int:
    """Measure, print, and return 1 unless the goals are met: the rate, and p99 at its half."""
    end_with_the_benchmark()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--loads", type=float, nargs="+", default=[GOAL_RATE / 2, GOAL_RATE])
    parser.add_argument("--folder", type=Path, help="where the jobs are, or are put and kept")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as temporary:
        folder = asked.folder or Path(temporary)
        known = folder / "jobs.json"
        began = time.perf_counter()
        made: list[str] = json.loads(known.read_text()) if known.exists() else fill(folder / "data", asked.jobs)
        known.write_text(json.dumps(made))
        print(f"{len(made)} jobs ({time.perf_counter() - began:.1f} s to put them there); milliseconds")
        with Server(folder) as server:
            ask(server, made, rate=50, seconds=2, n_connections=4)
            most = ask(server, made, rate=0, seconds=asked.seconds, n_connections=N_CONNECTIONS)
            good = sum(map(len, most.values())) / asked.seconds >= GOAL_RATE
            for rate in asked.loads:
                took = ask(server, made, rate=rate, seconds=asked.seconds, n_connections=N_CONNECTIONS)
                if rate <= GOAL_RATE / 2:
                    good &= all(each[int(len(each) * 0.99)] < GOAL_P99_MS for each in took.values())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
