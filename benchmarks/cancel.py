"""Cancel, measured from outside: how long until the answer, and how long until the last process of the job is gone.

A real server, the `openai` client, every cancel of a job that is in the middle of its training. At most `--at-once` are
cancelled at the same moment. Two settings:

- `trainers`: real training processes with torch loaded and steps going on, `--at-once` of them running at a time;
- `trees`: `--jobs` jobs running at the same time, each a supervisor and a worker that is held before it loads torch.

A process counts as gone when the kernel has ended it (its pidfd becomes readable); afterwards `/proc` is searched for
anything that still carries the job's tag.
"""

import argparse
import json
import os
import select
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai

from benchmarks._server import Server, end_with_the_benchmark
from tunesmith.supervisor import tree

GOAL_ANSWER_S = 0.05
GOAL_GONE_S = 0.25


@dataclass
class Measured:
    """Seconds from the call, one of each for every cancel."""

    answer_s: list[float] = field(default_factory=list[float])
    gone_s: list[float] = field(default_factory=list[float])
    n_processes: int = 0
    n_leaked: int = 0

    def add(self, other: "Measured") -> None:
        """Take the figures of another round in."""
        self.answer_s += other.answer_s
        self.gone_s += other.gone_s
        self.n_processes += other.n_processes
        self.n_leaked += other.n_leaked

    def show(self, name: str) -> None:
        """Print p50 and the longest of both."""
        for what, values, goal_s in (("answer", self.answer_s, GOAL_ANSWER_S), ("gone", self.gone_s, GOAL_GONE_S)):
            print(
                f"{name:9} {what:7} n={len(values):3}  p50 {statistics.median(values) * 1000:7.1f} ms  "
                f"max {max(values) * 1000:7.1f} ms  (goal {goal_s * 1000:.0f} ms)"
            )
        print(f"{name:9} processes killed {self.n_processes}, left alive {self.n_leaked}", flush=True)


class Owner:
    """A user of a server, with the base that the jobs tune."""

    def __init__(self, url: str, base: str) -> None:
        self.client = openai.OpenAI(base_url=url, api_key="any", max_retries=0, timeout=120)
        self.url, self.model = url, base
        if "/" in base:
            self.register(base)

    def register(self, base: str) -> None:
        """Register a folder as the base of the jobs to come."""
        self.model = "bench"
        body = {"name": self.model, "source": base}
        self.client.post(f"{self.url.removesuffix('/v1')}/tunesmith/v1/models", cast_to=object, body=body)

    def upload(self, n_rows: int = 200, *, answered: bool = True) -> str:
        """Upload short rows; without answers they are prompts of reinforcement."""
        answers = [[{"role": "assistant", "content": f"it is {n}"}] if answered else [] for n in range(n_rows)]
        rows = [{"messages": [{"role": "user", "content": f"number {n}"}, *answers[n]]} for n in range(n_rows)]
        text = "\n".join(json.dumps(row) for row in rows).encode()
        return self.client.files.create(file=("rows.jsonl", text), purpose="fine-tune").id

    def create(
        self,
        n_jobs: int,
        *,
        file: str | None = None,
        n_epochs: int = 50,
        batch_size: int = 1,
        grader: dict[str, Any] | None = None,
        **fields: Any,
    ) -> list[str]:
        """Create jobs that would train for long: by rewards where there is a grader."""
        file = file or self.upload(answered=grader is None)
        block: dict[str, Any] = {"hyperparameters": {"n_epochs": n_epochs, "batch_size": batch_size}}
        kind = "supervised" if grader is None else "reinforcement"
        method: Any = {"type": kind, kind: block if grader is None else {**block, "grader": grader}}
        create = self.client.fine_tuning.jobs.create
        return [
            create(model=self.model, training_file=file, validation_file=file, method=method, seed=1, **fields).id
            for _ in range(n_jobs)
        ]

    def at_work(self, job: str, *, stepping: bool) -> bool:
        """Say whether a job's trainer runs, and with `stepping` whether it has taken a step."""
        if self.client.fine_tuning.jobs.retrieve(job).status != "running":
            return False
        newest = self.client.fine_tuning.jobs.list_events(job, limit=1).data[0]
        return newest.type == "metrics" if stepping else len(tree.tagged(job)) >= 2


def cancel_together(owner: Owner, jobs: list[str], measured: Measured) -> None:
    """Cancel jobs at the same moment and wait until all is gone."""
    together = threading.Barrier(len(jobs))
    threads = [threading.Thread(target=_cancel, args=(owner, job, together, measured)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    measured.n_leaked += sum(len(tree.tagged(job)) for job in jobs)


def _cancel(owner: Owner, job: str, together: threading.Barrier, measured: Measured) -> None:
    descriptors = [os.pidfd_open(process.pid) for process in tree.tagged(job)]
    measured.n_processes += len(descriptors)
    ends: list[float] = []
    watcher = threading.Thread(target=_watch, args=(list(descriptors), ends))
    watcher.start()
    together.wait()
    began = time.monotonic()
    answer = owner.client.fine_tuning.jobs.cancel(job)
    measured.answer_s.append(time.monotonic() - began)
    assert answer.status == "cancelled", answer
    watcher.join()
    if ends:
        measured.gone_s.append(max(ends) - began)
    for descriptor in descriptors:
        os.close(descriptor)


def _watch(descriptors: list[int], ends: list[float]) -> None:
    waiting = select.poll()
    for descriptor in descriptors:
        waiting.register(descriptor, select.POLLIN)
    while len(ends) < len(descriptors):
        for descriptor, _ in waiting.poll():
            ends.append(time.monotonic())
            waiting.unregister(descriptor)


def measure(base: str, *, n_jobs: int, at_once: int, trainers: bool) -> Measured:
    """Cancel `n_jobs` running jobs, `at_once` at a time."""
    measured = Measured()
    settings = {
        "TUNESMITH_TRAINING_SLOTS": str(at_once if trainers else n_jobs),
        "TUNESMITH_TRAINING_THREADS": "1",
        "TUNESMITH_VALIDATION_SLOTS": "2",
    }
    if not trainers:
        settings["TUNESMITH_FAILPOINTS"] = "worker.train=sleep:3600"
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder), **settings) as server:
        owner = Owner(server.url, base)
        waiting = owner.create(n_jobs)
        if not trainers:
            while not all(owner.at_work(job, stepping=False) for job in waiting):
                time.sleep(0.5)
        while waiting:
            # Jobs created together are validated side by side, so any of them may be the first to run.
            ready = [job for job in waiting if owner.at_work(job, stepping=trainers)][:at_once]
            if len(ready) < min(at_once, len(waiting)):
                time.sleep(0.1)
                continue
            time.sleep(0.3)
            cancel_together(owner, ready, measured)
            waiting = [job for job in waiting if job not in ready]
        owner.client.close()
    return measured


def main() -> int:
    """Measure both settings; return 1 if something stayed alive."""
    end_with_the_benchmark()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--base", default="tunesmith-nano", help="a registered base, or a folder")
    parser.add_argument("--only", choices=["trainers", "trees"])
    chosen = parser.parse_args()
    n_leaked = 0
    for name in ("trees", "trainers"):
        if chosen.only in (None, name):
            load = os.getloadavg()[0]
            measured = measure(chosen.base, n_jobs=chosen.jobs, at_once=chosen.at_once, trainers=name == "trainers")
            print(f"{name}: {os.cpu_count()} cores, load before {load:.1f}, after {os.getloadavg()[0]:.1f}")
            measured.show(name)
            n_leaked += measured.n_leaked
    return int(n_leaked > 0)


if __name__ == "__main__":
    sys.exit(main())
