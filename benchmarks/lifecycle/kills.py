"""Events lost, doubled or out of order while server, supervisors and workers are killed with -9, again and again.

A real server on the embedded base, real trainings. A reader asks for the events of every job all the time and writes down
what it was shown; once a job has ended, its events must be: everything that was ever shown, in that order; one metrics
event for each step, ascending; one end; and as many lines in the result file as there are steps.

    python -m benchmarks.lifecycle.kills [--kills 1000] [--seed 1]
"""

import argparse
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai

from benchmarks._server import Server, end_with_the_benchmark
from tunesmith.supervisor import tree

N_ROWS = 40
N_EPOCHS = 5
N_STEPS = N_EPOCHS * N_ROWS // 2
#: Jobs that are not done at any moment.
N_AT_ONCE = 4
SETTINGS = {
    "TUNESMITH_TRAINING_SLOTS": "2",
    "TUNESMITH_TRAINING_THREADS": "1",
    "TUNESMITH_MAX_ATTEMPTS": "1000",
    # slow enough to be killed between two steps
    "TUNESMITH_FAILPOINTS": "train.step=sleep:0.03",
}
#: How often the next kill comes within a second.
STORM = 0.85
ENDS = ("succeeded", "failed", "cancelled")


@dataclass
class Found:
    """What went wrong, and how much was looked at."""

    n_events: int = 0
    n_jobs: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    #: Jobs that ended in another way than they should.
    failed: list[str] = field(default_factory=list[str])
    kills: Counter[str] = field(default_factory=Counter[str])

    @property
    def n_faults(self) -> int:
        """Everything that should be nought."""
        return self.lost + self.doubled + self.out_of_order + len(self.failed)


class Reader(threading.Thread):
    """A client that reads the events of all jobs and remembers what it was shown, in the order of each job."""

    def __init__(self, where: "Where") -> None:
        super().__init__(daemon=True)
        self._where = where
        self.shown: dict[str, dict[str, str]] = {}
        self.jobs: set[str] = set()
        self.done = threading.Event()

    def run(self) -> None:
        """Read until the end; a server that is away is asked again."""
        while not self.done.wait(0.1):
            for job in list(self.jobs):
                try:
                    newest = self._where.client.fine_tuning.jobs.list_events(job, limit=20).data
                except openai.APIError:
                    continue
                known = self.shown.setdefault(job, {})
                known.update({event.id: event.message for event in reversed(newest)})


class Where:
    """The server of the moment, and its client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.start()

    def start(self) -> None:
        """Start a server on the folder."""
        self.server = Server(self._folder, **SETTINGS)
        self.client = openai.OpenAI(base_url=self.server.url, api_key="any", max_retries=0, timeout=20)

    def kill(self) -> None:
        """Kill the server and start the next."""
        self.server.process.kill()
        self.server.close()
        self.start()


def upload(client: openai.OpenAI) -> str:
    """Upload rows of a few tokens."""
    rows = [
        {"messages": [{"role": "user", "content": f"number {n}"}, {"role": "assistant", "content": f"it is {n}"}]}
        for n in range(N_ROWS)
    ]
    text = "\n".join(json.dumps(row) for row in rows).encode()
    return client.files.create(file=("rows.jsonl", text), purpose="fine-tune").id


def kill(kind: str, jobs: set[str], chance: random.Random) -> bool:
    """Kill a supervisor or a worker of an unfinished job; False when there is none."""
    processes = [process.pid for job in jobs for process in tree.tagged(job)]
    among = [pid for pid in processes if _is_supervisor(pid) == (kind == "supervisor")]
    if not among:
        return False
    try:
        os.kill(chance.choice(among), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _is_supervisor(pid: int) -> bool:
    try:
        return b"tunesmith.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def torment(n_kills: int, seed: int) -> Found:
    """Kill `n_kills` times while jobs come and go, then let the rest end and look at them all."""
    found, chance = Found(), random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        where = Where(Path(name))
        reader = Reader(where)
        reader.start()
        file = upload(where.client)
        open_jobs: set[str] = set()
        while found.kills.total() < n_kills or open_jobs:
            enough = found.kills.total() >= n_kills
            while len(open_jobs) < N_AT_ONCE and not enough:
                open_jobs.add(create(where.client, file))
                reader.jobs |= open_jobs
            # in storms, with calms between them in which jobs get on: what nobody finishes has little to lose
            time.sleep(chance.uniform(0.05, 1.0) if enough or chance.random() < STORM else chance.uniform(4, 12))
            if not enough:
                strike(where, open_jobs, chance, found)
            for job in [job for job in open_jobs if ended(where.client, job)]:
                open_jobs.remove(job)
                reader.jobs.discard(job)
                examine(where.client, job, reader.shown.get(job, {}), found)
        reader.done.set()
        reader.join()
        where.server.end()
    return found


def create(client: openai.OpenAI, file: str) -> str:
    """Create a job of a few seconds."""
    knobs = {"n_epochs": N_EPOCHS, "batch_size": 2}
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": knobs}}
    return client.fine_tuning.jobs.create(model="tunesmith-nano", training_file=file, method=method).id


def strike(where: Where, jobs: set[str], chance: random.Random, found: Found) -> None:
    """Kill one process with -9."""
    kind = chance.choice(("server", "supervisor", "worker"))
    if kind == "server":
        where.kill()
    elif not kill(kind, jobs, chance):
        return
    found.kills[kind] += 1
    n_kills = found.kills.total()
    if n_kills % 50 == 0:
        print(f"{n_kills} kills, {found.n_jobs} jobs ended, faults {found.n_faults}", file=sys.stderr, flush=True)


def ended(client: openai.OpenAI, job: str) -> bool:
    """Say whether a job has ended."""
    return client.fine_tuning.jobs.retrieve(job).status in ENDS


def examine(client: openai.OpenAI, job: str, shown: dict[str, str], found: Found) -> None:
    """Count what is wrong with the events of a job that has ended."""
    last = client.fine_tuning.jobs.retrieve(job)
    events = list(client.fine_tuning.jobs.list_events(job, limit=100))[::-1]
    ids = [event.id for event in events]
    steps = [int(event.data["step"]) for event in events if event.type == "metrics" and isinstance(event.data, dict)]
    found.n_jobs += 1
    found.n_events += len(events)
    found.lost += len(shown.keys() - set(ids)) + len(set(range(1, N_STEPS + 1)) - set(steps))
    found.doubled += len(ids) - len(set(ids)) + len(steps) - len(set(steps))
    place = {name: number for number, name in enumerate(ids)}
    order = [place[name] for name in shown if name in place]
    found.out_of_order += sum(later < earlier for line in (order, steps) for earlier, later in itertools.pairwise(line))
    if last.status != "succeeded" or events[-1].message != "The job has successfully completed":
        found.failed.append(f"{job} {last.status} {last.error}")
    elif len(client.files.content(last.result_files[0]).text.splitlines()) != N_STEPS + 1:
        found.failed.append(f"{job} result file")


def main() -> int:
    """Torment a server and print what was found; return 1 if anything was."""
    end_with_the_benchmark()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    began = time.monotonic()
    found = torment(asked.kills, asked.seed)
    spread = ", ".join(f"{kind} {n}" for kind, n in sorted(found.kills.items()))
    print(f"kill -9: {found.kills.total()} ({spread}), seed {asked.seed}, {time.monotonic() - began:.0f} s")
    print(f"jobs {found.n_jobs}, events {found.n_events}")
    print(f"lost {found.lost}, doubled {found.doubled}, out of order {found.out_of_order}, otherwise {len(found.failed)}")
    for line in found.failed:
        print(line)
    return int(found.n_faults > 0)


if __name__ == "__main__":
    sys.exit(main())
