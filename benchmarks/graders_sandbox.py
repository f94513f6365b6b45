"""The sandbox of `python` graders: calls a second and processor time a call, light and with numpy, two in flight.

    python -m benchmarks.graders_sandbox [--calls 2000] [--at-once 2] [--environment FOLDER]

FOLDER is an environment with numpy (`tunesmith grader-env install` makes DATA/grader-env); without one only the light grader
is measured. Processor time is the kernel's, of the server and of the zygote with the calls that it has collected; `had` is
how much of the machine's that was: what is missing to 100 % others took, or nobody.
"""

import argparse
import asyncio
import os
import resource
import statistics
import time
from pathlib import Path

from tunesmith.graders.base import Sample
from tunesmith.graders.sandbox.environment import Environment
from tunesmith.graders.sandbox.pool import Sandbox

GOAL_CALLS_S = 300.0
LIGHT = """
import json, re
def grade(sample, item):
    found = set(re.findall(r"\\w+", sample["output_text"].lower()))
    wanted = set(re.findall(r"\\w+", item["answer"].lower()))
    return len(found & wanted) / max(1, len(found | wanted))
"""
NUMPY = """
import numpy as np
def grade(sample, item):
    left, right = (np.array([ord(letter) for letter in text.ljust(64)[:64]], dtype=float) for text in
        (sample["output_text"], item["answer"]))
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))
"""
SAMPLE = Sample.of_text("The capital of France is Paris, on the Seine.", {"answer": "Paris is the capital of France."})


def cpu_s(pids: list[int]) -> float:
    """Return the processor time of processes and of the children that they have collected."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def processes(roots: list[int]) -> list[int]:
    """Return the processes that the server started and their children: the zygotes."""
    found = list(roots)
    for pid in roots:
        found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return found


async def measure(sandbox: Sandbox, name: str, source: str, n_calls: int, at_once: int) -> float:
    """Print the figures of one grader and return its calls a second."""
    await sandbox.check(source, None)
    for _ in range(20):
        await sandbox.grade(source, SAMPLE)
    left = iter(range(n_calls))
    took: list[float] = []

    async def work() -> None:
        for _ in left:
            began = time.perf_counter()
            await sandbox.grade(source, SAMPLE)
            took.append(time.perf_counter() - began)

    pids = processes(sandbox.pids)
    cpu, own = cpu_s(pids), resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(at_once)))
    wall = time.perf_counter() - began
    now = resource.getrusage(resource.RUSAGE_SELF)
    ours = (now.ru_utime + now.ru_stime - own.ru_utime - own.ru_stime) / n_calls
    theirs = (cpu_s(pids) - cpu) / n_calls
    had = (ours + theirs) * n_calls / wall / len(os.sched_getaffinity(0))
    print(
        f"{name:<6} {n_calls / wall:7.0f} calls/s  p50 {1000 * statistics.median(took):5.1f} ms  "
        f"p99 {1000 * statistics.quantiles(took, n=100)[98]:5.1f} ms  "
        f"CPU/call {1000 * theirs:5.2f} ms in the sandbox, {1000 * ours:5.2f} ms in the server  had {had:.0%}"
    )
    return n_calls / wall


async def story(asked: argparse.Namespace) -> None:
    """Measure what there is."""
    environment = Environment(asked.environment or Path("there is none"))
    sandbox = Sandbox(environment, n_at_once=asked.at_once, n_calls_each=10**9)
    try:
        found = await sandbox.found()
        print(f"level {found.level}, {asked.at_once} in flight, {len(os.sched_getaffinity(0))} cores")
        rate = await measure(sandbox, "light", LIGHT, asked.calls, asked.at_once)
        print(f"goal: {GOAL_CALLS_S:.0f} calls/s: {'met' if rate >= GOAL_CALLS_S else 'missed'}")
        if "numpy" in environment.installed:
            await measure(sandbox, "numpy", NUMPY, asked.calls, asked.at_once)
    finally:
        sandbox.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--environment", type=Path)
    asyncio.run(story(parser.parse_args()))
