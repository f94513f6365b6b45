"""Eight small jobs on one base in one process, beside eight processes with one job each.

Both sides are ours: the same step (`engine.step.forward_backward`) over a list of (job, micro-batch), of eight or of one. A
step of a job is one chat of about 128 tokens, as `auto` has it for a file of a few hundred. Memory is what the processes
hold while all are alive, a page that several map counted once (PSS).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.methods import shapes
from benchmarks.methods.table import head, spread

NAME = "jobs"
N_JOBS = 8
N_STEPS, N_DROPPED = 24, 4
CONTEXT = 1024
ONE_THREAD = {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}  # fmt: skip
Figures = dict[str, float]


def one(folder: Path, jobs: list[int]) -> None:
    """Train these jobs in this process: load, wait for a line, train, tell, wait for the end of input."""
    import torch

    from tunesmith.data.render import Renderer
    from tunesmith.engine.batch import MicroBatch, pack
    from tunesmith.engine.document import Document
    from tunesmith.engine.optim import Optimizer
    from tunesmith.engine.step import Tuning, forward_backward
    from tunesmith.lm.last_layer import trim
    from tunesmith.lm.load import load
    from tunesmith.lm.lora import LoraModel
    from tunesmith.methods.supervised import Supervised

    torch.set_num_threads(1)
    base = load(folder / "base")
    lora = LoraModel(base.model)
    trim(base.decoder, lora.route)
    renderer = Renderer.load(folder / "base")
    method = Supervised()

    def micros(job: int) -> list[MicroBatch]:
        rows = shapes.read_rows(folder / "blobs" / f"{job}.jsonl")
        examples = [example for row in rows for example in renderer.examples(row["messages"], max_tokens=CONTEXT)]
        return [pack([Document.of(example)]) for example in examples]

    steps = list(zip(*(micros(job) for job in jobs), strict=True))
    tunings: list[Tuning] = []
    for slot, job in enumerate(jobs):
        adapter = lora.fresh(seed=job)
        lora.place(slot, adapter)
        tunings.append(Tuning(slot, method, adapter, Optimizer(adapter.parameters(), total_steps=len(steps), peak=1e-3)))

    def step(parts: Any) -> None:
        forward_backward(base, lora, list(zip(tunings, parts, strict=True)))
        for tuning in tunings:
            tuning.update()

    for parts in steps[:N_DROPPED]:
        step(parts)
    print("READY", flush=True)
    sys.stdin.readline()
    cpu, wall = time.process_time(), time.time()
    for parts in steps[N_DROPPED:]:
        step(parts)
    figures = {
        "tokens": sum(micro.n_tokens for parts in steps[N_DROPPED:] for micro in parts),
        "CPU s": time.process_time() - cpu,
        "begin": wall,
        "end": time.time(),
        "start CPU s": cpu,
    }
    print(json.dumps(figures), flush=True)
    sys.stdin.read()


def together(folder: Path, shares: list[list[int]]) -> Figures:
    """Train jobs in so many processes as there are shares, all at once; return what it took."""
    command = [sys.executable, "-m", "benchmarks.methods.jobs", "--folder", str(folder)]
    processes = [
        subprocess.Popen(
            [*command, "--jobs", ",".join(map(str, share))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD,
        )
        for share in shares
    ]  # fmt: skip
    for process in processes:
        _expect(process, "READY")
    for process in processes:
        _pipe(process.stdin).write("\n")
        _pipe(process.stdin).flush()
    told: list[Figures] = [json.loads(_pipe(process.stdout).readline()) for process in processes]
    memory = sum(_pss_gb(process.pid) for process in processes)
    for process in processes:
        process.communicate()
    tokens = sum(each["tokens"] for each in told)
    return {
        "tokens per CPU s": tokens / sum(each["CPU s"] for each in told),
        "tokens per wall s": tokens / (max(each["end"] for each in told) - min(each["begin"] for each in told)),
        "memory GB": memory,
        "start CPU s": sum(each["start CPU s"] for each in told),
    }


def rounds(n_rounds: int) -> list[tuple[Figures, Figures]]:
    """Measure both sides so many times: one process, and one for each job."""
    found: list[tuple[Figures, Figures]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shapes.build_base(folder / "base")
        for job in range(N_JOBS):
            shapes.write_rows(folder / "blobs" / f"{job}.jsonl", N_STEPS, shapes.short_chat, seed=job)
        for number in range(n_rounds):
            shares = {"one": [list(range(N_JOBS))], "many": [[job] for job in range(N_JOBS)]}
            sides = list(shares) if number % 2 else list(reversed(shares))
            figures = {side: together(folder, shares[side]) for side in sides}
            print(json.dumps({"work": NAME, "round": number + 1, **figures}), flush=True)
            found.append((figures["one"], figures["many"]))
    return found


def table(found: list[tuple[Figures, Figures]]) -> str:
    """Return the Markdown table."""
    lines = head("8 jobs", "one process", "eight processes", "ratio", "goal")
    goals = {"memory GB": "≤ 0.3x", "tokens per CPU s": "≥ 1.2x", "tokens per wall s": "", "start CPU s": ""}
    for key, goal in goals.items():
        one_, many = [one[key] for one, _ in found], [many[key] for _, many in found]
        ratio = spread([mine / its for mine, its in zip(one_, many, strict=True)])
        lines.append(f"| {key} | {spread(one_)} | {spread(many)} | **{ratio}x** | {goal} |")
    return "\n".join(lines)


def _pss_gb(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.partition("Pss:")[2].split()[0]) / 1e6


def _expect(process: Any, word: str) -> None:
    line = process.stdout.readline().strip()
    if line != word:
        raise RuntimeError(f"a process of {NAME} said {line!r} instead of {word!r}; see its errors above")


def _pipe(pipe: Any) -> Any:
    assert pipe is not None
    return pipe


def main() -> None:
    """Be one of the processes."""
    parser = argparse.ArgumentParser(prog="benchmarks.methods.jobs")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--jobs", required=True)
    arguments = parser.parse_args()
    one(arguments.folder, [int(job) for job in arguments.jobs.split(",")])


if __name__ == "__main__":
    main()
