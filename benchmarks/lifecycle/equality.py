"""Whether runs that were paused or killed at random points end as an undisturbed one, to the bit.

A real server on the embedded base. One run goes undisturbed; every further run of the same file and seed is disturbed
at random steps: paused and resumed, or its worker, its supervisor or the server is killed with -9. Compared are the bytes
of the adapter, the metrics events, the result file and the number of trained tokens.

    python -m benchmarks.lifecycle.equality [--points 50] [--seed 1]
"""

import argparse
import hashlib
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import openai

from benchmarks._server import Server, end_with_the_benchmark
from benchmarks.lifecycle.kills import SETTINGS, kill, upload

N_EPOCHS = 3
N_STEPS = 60
#: Disturbances of one run.
N_EACH = 2
KINDS = ("pause", "worker", "supervisor", "server")


class House:
    """The server of the moment and its client."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self._settings = SETTINGS | settings
        self.start()

    def start(self) -> None:
        """Start a server on the folder."""
        self.server = Server(self.folder, **self._settings)
        self.client = openai.OpenAI(base_url=self.server.url, api_key="any", max_retries=0, timeout=30)

    def create(self, file: str, *, n_epochs: int = N_EPOCHS) -> str:
        """Create a job like all the others."""
        method: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": n_epochs, "batch_size": 2}}}
        jobs = self.client.fine_tuning.jobs
        return jobs.create(model="tunesmith-nano", training_file=file, method=method, seed=11).id

    def status(self, job: str) -> str:
        """Return the job's status."""
        return self.client.fine_tuning.jobs.retrieve(job).status

    def steps(self, job: str) -> list[Any]:
        """Return what the job's metrics events say, oldest first."""
        events = list(self.client.fine_tuning.jobs.list_events(job, limit=100))[::-1]
        return [event.data for event in events if event.type == "metrics"]

    def result(self, job: str) -> tuple[str, list[Any], str, int | None]:
        """Return what a finished job left: the adapter's hash, metrics, result file, trained tokens."""
        done = self.client.fine_tuning.jobs.retrieve(job)
        assert done.status == "succeeded", (job, done.status, done.error)
        pattern = f"attempts/*/checkpoints/{N_STEPS:06d}/adapter_model.safetensors"
        (adapter,) = (self.folder / "data" / "blobs" / "jobs" / job).glob(pattern)
        text = self.client.files.content(done.result_files[0]).text
        return hashlib.sha256(adapter.read_bytes()).hexdigest(), self.steps(job), text, done.trained_tokens


def wait_for(house: House, job: str, step: int) -> bool:
    """Wait until the job has taken a step; False when it ended before."""
    while len(house.steps(job)) < step:
        if house.status(job) in ("succeeded", "failed"):
            return False
        time.sleep(0.02)
    return house.status(job) == "running"


def disturb(house: House, job: str, kind: str) -> bool:
    """Pause and resume the job, or kill somebody; False when it had ended before that."""
    if kind == "pause":
        try:
            house.client.fine_tuning.jobs.pause(job)
        except openai.BadRequestError:
            return False
        while (status := house.status(job)) == "running":
            time.sleep(0.02)
        if status != "paused":
            return False
        house.client.fine_tuning.jobs.resume(job)
        return True
    if kind == "server":
        house.server.process.kill()
        house.server.close()
        house.start()
        return True
    return kill(kind, {job}, random.Random(0))


def compare(n_points: int, seed: int) -> tuple[Counter[str], int, list[str]]:
    """Return the disturbances by kind, the number of runs, and the runs that ended otherwise."""
    chance, points, n_runs, wrong = random.Random(seed), Counter[str](), 0, list[str]()
    with tempfile.TemporaryDirectory() as name:
        house = House(Path(name))
        file = upload(house.client)
        undisturbed = house.create(file)
        while house.status(undisturbed) not in ("succeeded", "failed"):
            time.sleep(0.1)
        expected = house.result(undisturbed)
        while points.total() < n_points:
            job, n_runs = house.create(file), n_runs + 1
            told: list[str] = []
            for step in sorted(chance.sample(range(1, N_STEPS), N_EACH)):
                kind = KINDS[points.total() % len(KINDS)]
                if wait_for(house, job, step) and disturb(house, job, kind):
                    points[kind] += 1
                    told.append(f"{kind} after step {step}")
            while house.status(job) not in ("succeeded", "failed"):
                time.sleep(0.1)
            if house.result(job) != expected:
                wrong.append(f"{job}: {', '.join(told)}")
            print(f"{points.total()} points, {n_runs} runs, {len(wrong)} differ", file=sys.stderr, flush=True)
        house.server.end()
    return points, n_runs, wrong


def main() -> int:
    """Compare and print what was found; return 1 if a run differs."""
    end_with_the_benchmark()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    points, n_runs, wrong = compare(asked.points, asked.seed)
    spread = ", ".join(f"{kind} {n}" for kind, n in sorted(points.items()))
    print(f"{points.total()} points ({spread}) in {n_runs} runs of {N_STEPS} steps, seed {asked.seed}")
    print(f"runs that differ from the undisturbed one in a bit: {len(wrong)}")
    for line in wrong:
        print(line)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
