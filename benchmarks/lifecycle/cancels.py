"""Cancel in every phase, from outside: how long until the answer, and how long until the last process is gone.

A real server on the embedded base and the `openai` client; one job is cancelled at a time, while others get ready beside it.
A phase is reached by holding the job's processes there (a failpoint), except `steps`, which are really computed, and
`validating`, which reads a large file; each cancel comes a random moment later. `2 GB loaded` are real steps of a base with
random weights of 2.1 GB; it is cancelled 20 times at most, and not in the line of all.

    python -m benchmarks.lifecycle.cancels [--each 75] [--phase NAME …]
"""

import argparse
import contextlib
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._server import Server, end_with_the_benchmark
from benchmarks.cancel import Measured, Owner, cancel_together
from tunesmith import bases
from tunesmith.supervisor import tree

#: Where a training is held.
HELD = {
    "warm start": "worker.train=sleep:3600",
    "model load": "train.load=sleep:3600",
    "tokenising": "train.tokenise=sleep:3600@3",
    "first step": "train.step=sleep:3600@1",
    "inside a step": "train.backward=sleep:3600@4",
    "evaluation": "train.evaluate=sleep:3600",
    "checkpoint save": "checkpoint.put=sleep:3600@2",
    "upload": "checkpoint.manifest=sleep:3600",
    "publish": "train.finished=sleep:3600",
}
#: Answers are sampled up to here, of the validation rows before the first step.
SAMPLING = "sampler.step=sleep:3600@20"
#: Grades in the sandbox: one that would be there at once, and one that never is (its time is over after two minutes).
ONE = {"type": "python", "name": "one", "source": "def grade(sample, item):\n    return 1.0"}
HANGS = {"type": "python", "name": "hangs", "source": "import time\ndef grade(sample, item):\n    time.sleep(3600)"}
#: Supervisor, trainer and the sandbox's first process; with more of them a call is on its way.
N_AT_REST = 3
N_HUGE_ROWS = 200_000
#: Trainings at a time: one is cancelled while the next gets ready.
N_SLOTS = 2
#: A job whose epochs end soon, so that evaluation and checkpoint are reached.
QUICK = {"n_epochs": 1, "batch_size": 32}
LONGEST_WAIT_S = 120.0
N_LARGE = 20


@dataclass
class Rig:
    """A server, its owner, and where its attempts write."""

    server: Server
    owner: Owner
    folder: Path

    def at(self, job: str, point: str) -> bool:
        """Say whether the job's training is held at a point."""
        logs = (self.folder / "data" / "attempts" / job).glob("*/stderr.log")
        return any(f"failpoint {point}\n" in log.read_text() for log in logs)

    def status(self, job: str) -> str:
        """Return the status of a job."""
        return self.owner.client.fine_tuning.jobs.retrieve(job).status

    def any_of(self, jobs: list[str], ready: Callable[[str], bool]) -> str:
        """Wait until one of the jobs is ready, and a random moment longer."""
        end = time.monotonic() + LONGEST_WAIT_S
        while time.monotonic() < end:
            for job in jobs:
                if ready(job):
                    time.sleep(random.uniform(0.05, 0.3))
                    return job
            time.sleep(0.02)
        raise TimeoutError(f"none of {jobs} got ready: {[self.status(job) for job in jobs]}")


@contextlib.contextmanager
def rig(failpoints: str = "", **settings: str) -> Generator[Rig]:
    """Start a server for one phase; what still runs at the end is cancelled."""
    settings = {"TUNESMITH_TRAINING_SLOTS": str(N_SLOTS), "TUNESMITH_TRAINING_THREADS": "1", **settings}
    if failpoints:
        settings["TUNESMITH_FAILPOINTS"] = failpoints
    with tempfile.TemporaryDirectory() as name, Server(Path(name), **settings) as server:
        owner = Owner(server.url, "tunesmith-nano")
        yield Rig(server, owner, Path(name))
        for job in owner.client.fine_tuning.jobs.list(limit=100):
            if job.status not in ("succeeded", "failed", "cancelled"):
                owner.client.fine_tuning.jobs.cancel(job.id)
        owner.client.close()


def one_by_one(rig: Rig, n: int, ready: Callable[[str], bool], **knobs: Any) -> Measured:
    """Cancel `n` jobs, whichever is ready first; as many as there are slots are on their way."""
    measured, file = Measured(), rig.owner.upload(answered="grader" not in knobs)
    waiting: list[str] = []
    while len(measured.answer_s) < n:
        waiting += rig.owner.create(min(N_SLOTS + 1, n - len(measured.answer_s)) - len(waiting), file=file, **knobs)
        job = rig.any_of(waiting, ready)
        waiting.remove(job)
        cancel_together(rig.owner, [job], measured)
    return measured


def held(point: str) -> Callable[[int], Measured]:
    """Return the measuring of trainings that are held at a failpoint."""

    def measure(n: int) -> Measured:
        with rig(point) as there:
            name = point.partition("=")[0]
            return one_by_one(there, n, lambda job: there.at(job, name), **QUICK)

    return measure


def sampling(n: int) -> Measured:
    """Cancel trainings that are held while they sample."""
    with rig(SAMPLING) as there:
        return one_by_one(there, n, lambda job: there.at(job, "sampler.step"), grader=ONE, **QUICK)


def hanging(n: int) -> Measured:
    """Cancel trainings whose grader hangs in the sandbox."""
    with rig() as there:
        return one_by_one(there, n, lambda job: len(tree.tagged(job)) > N_AT_REST, grader=HANGS, **QUICK)


def steps(n: int) -> Measured:
    """Cancel trainings whose steps go on."""
    with rig() as there:
        return one_by_one(there, n, lambda job: there.owner.at_work(job, stepping=True), n_epochs=50, batch_size=16)


def validating(n: int) -> Measured:
    """Cancel validations of a large file."""
    measured = Measured()
    with rig(TUNESMITH_VALIDATION_SLOTS="1") as there:
        file = there.owner.upload(N_HUGE_ROWS)
        for _ in range(n):
            (job,) = there.owner.create(1, file=file)
            there.any_of([job], lambda job: len(tree.tagged(job)) >= 2)
            cancel_together(there.owner, [job], measured)
    return measured


def waiting(n: int, *, paused: bool = False) -> Measured:
    """Cancel jobs that are queued, or paused, while others train."""
    measured = Measured()
    with rig(HELD["warm start"]) as there:
        file = there.owner.upload()
        running = there.owner.create(N_SLOTS, file=file)
        for job in running:
            there.any_of([job], lambda job: there.status(job) == "running")
        for job in there.owner.create(n, file=file):
            there.any_of([job], lambda job: there.status(job) == "queued" and not tree.tagged(job))
            if paused:
                assert there.owner.client.fine_tuning.jobs.pause(job).status == "paused"
            cancel_together(there.owner, [job], measured)
    return measured


def pausing(n: int) -> Measured:
    """Cancel trainings that are about to pause, held in front of their checkpoint."""
    with rig("checkpoint.put=sleep:3600,train.step=sleep:0.2") as there:
        asked: set[str] = set()

        def ready(job: str) -> bool:
            if job not in asked and there.owner.at_work(job, stepping=True):
                asked.add(job)
                # the answer waits for the checkpoint, and this does not wait for the answer
                threading.Thread(target=there.owner.client.fine_tuning.jobs.pause, args=(job,)).start()
            return there.at(job, "checkpoint.put")

        return one_by_one(there, n, ready, n_epochs=50, batch_size=1)


def large(n: int) -> Measured:
    """Cancel trainings of a large base."""
    with rig(TUNESMITH_TRAINING_THREADS="2", TUNESMITH_TRAINING_SLOTS="1") as there:
        there.owner.register(str(enlarged(there.folder / "large")))
        return one_by_one(
            there, min(n, N_LARGE), lambda job: there.owner.at_work(job, stepping=True), n_epochs=50, batch_size=1
        )


def enlarged(folder: Path) -> Path:
    """Write the embedded base's tokenizer, and random weights of its architecture that take 2.1 GB in fp32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(Path(bases.__file__).parent / "tunesmith-nano", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    wide = {"hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 16, "num_key_value_heads": 16}
    config = AutoConfig.from_pretrained(folder, **wide, head_dim=128, num_hidden_layers=8)
    if hasattr(config, "layer_types"):
        config.layer_types = config.layer_types[:1] * config.num_hidden_layers
    AutoModelForCausalLM.from_config(config).to(torch.float32).save_pretrained(folder)
    return folder


PHASES: dict[str, Callable[[int], Measured]] = {
    "validating": validating,
    "queued": waiting,
    **{name: held(point) for name, point in HELD.items()},
    "sampling": sampling,
    "hanging grader": hanging,
    "steps": steps,
    "while it pauses": pausing,
    "paused": lambda n: waiting(n, paused=True),
    "2 GB loaded": large,
}


def row(name: str, measured: Measured) -> str:
    """Return a line of the table."""
    cells = [f"{_ms(values)}" for values in (measured.answer_s, measured.gone_s)]
    return f"| {name} | {len(measured.answer_s)} | {' | '.join(cells)} | {measured.n_leaked} of {measured.n_processes} |"


def _ms(values: list[float]) -> str:
    if not values:
        return "no process | | "
    p99 = statistics.quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]
    return f"{statistics.median(values) * 1000:.0f} | {p99 * 1000:.0f} | {max(values) * 1000:.0f}"


HEADER = (
    "| phase | n | answer ms, p50 | p99 | max | last process gone ms, p50 | p99 | max | left alive |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def main() -> int:
    """Measure and print the table; return 1 if something stayed alive."""
    end_with_the_benchmark()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=75)
    parser.add_argument("--phase", action="append", choices=list(PHASES))
    asked = parser.parse_args()
    total, leaked = Measured(), False
    print(HEADER, flush=True)
    for name in asked.phase or PHASES:
        measured = PHASES[name](asked.each)
        print(row(name, measured), flush=True)
        if name != "2 GB loaded":
            total.add(measured)
        leaked |= measured.n_leaked > 0
    if total.answer_s:
        print(row("all", total))
    return int(leaked)


if __name__ == "__main__":
    sys.exit(main())
