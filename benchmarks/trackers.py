"""What a Weights & Biases that is gone, or that never answers, costs a job: its steps from the first one on, and its cancel.

A real server whose jobs train one after another: in every round one without a tracker, one whose tracker's server takes
connections and says nothing, and one whose tracker's server is not there. The window begins at the first step, so that the
tracker's own start lies in it. Ratios are taken within a round. A step that waits for a tracker takes longer on the clock
than on the processor; what else makes one job slower than another, the machine does to both times.

    python -m benchmarks.trackers [--rounds 5] [--seconds 10]
"""

import argparse
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._server import Server, end_with_the_benchmark
from benchmarks.cancel import Owner
from benchmarks.dashboard import Running, Window

GOAL_LOSS = 0.02
ASKED: Any = [{"type": "wandb", "wandb": {"project": "bench"}}]
SILENT, DEAD, NONE = "never answers", "is not there", "none"


def measured(server: Server, owner: Owner, tracker: str | None, seconds: float) -> tuple[Window, float]:
    """Train a job that tells the tracker at this address; return a window of it, and how long its cancel takes, in s."""
    if tracker is not None:
        root = server.url.removesuffix("/v1")
        body = {"api_key": "w" * 40, "base_url": tracker}
        owner.client.put(f"{root}/tunesmith/v1/integrations/wandb", cast_to=object, body=body)
    [job] = owner.create(1, **({"integrations": ASKED} if tracker is not None else {}))
    while not owner.at_work(job, stepping=True):
        time.sleep(0.05)
    window = Running(server, job).window(seconds)
    began = time.monotonic()
    owner.client.fine_tuning.jobs.cancel(job)
    return window, time.monotonic() - began


def main() -> int:
    """Measure, print, and return 1 if steps wait for a tracker."""
    end_with_the_benchmark()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    asked = parser.parse_args()
    ratios: dict[str, list[tuple[float, float]]] = {SILENT: [], DEAD: []}
    cancels: dict[str, list[float]] = {SILENT: [], DEAD: [], NONE: []}
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd()) as folder,
        socket.create_server(("127.0.0.1", 0), backlog=128) as silent,
        socket.create_server(("127.0.0.1", 0)) as closed,
    ):
        addresses = {
            SILENT: f"http://127.0.0.1:{silent.getsockname()[1]}",
            DEAD: f"http://127.0.0.1:{closed.getsockname()[1]}",
        }
        closed.close()
        settings = {"TUNESMITH_TRAINING_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with Server(Path(folder), **settings) as server:
            owner = Owner(server.url, "tunesmith-nano")
            measured(server, owner, None, 1)  # every path has been taken
            print("| tracker | step, wall ms | step, CPU ms | cancel answered, ms |\n|---|---|---|---|")
            for number in range(asked.rounds):
                names = [NONE, SILENT, DEAD]
                found: dict[str, Window] = {}
                for name in names[number % 3 :] + names[: number % 3]:
                    found[name], cancel_s = measured(server, owner, addresses.get(name), asked.seconds)
                    cancels[name].append(cancel_s)
                    window = found[name]
                    print(
                        f"| {name} | {window.step_ms:.2f} | {window.step_cpu_ms:.2f} | {cancel_s * 1000:.0f} |", flush=True
                    )
                for name, each in ratios.items():
                    slower = found[name].step_ms / found[NONE].step_ms
                    each.append((slower, slower / (found[name].step_cpu_ms / found[NONE].step_cpu_ms)))
    good = True
    for name, each in ratios.items():
        for what, values in zip(("wall time", "wall time for its processor time"), zip(*each, strict=True), strict=True):
            told = f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"
            print(f"{name}: a step takes {told} of its {what} without")
        good &= statistics.median(waits for _, waits in each) - 1 < GOAL_LOSS
    for name, each in cancels.items():
        print(
            f"{name}: a cancel is answered within {statistics.median(each) * 1000:.0f} ms (at most {max(each) * 1000:.0f})"
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
