"""From create to the first optimizer step: a supervised job of 100 rows on the embedded base, as its owner sees it.

A real server, the `openai` client. One round is one job: the clock starts with the call of create and stops when the
first metrics event can be read; the marks between are statuses and events as they become visible (polled every 10 ms).
The job is cancelled after its first step. `cold`: every process starts from nothing. `warm`: a spare of each kind is ready.

    python -m benchmarks.first_step [--rounds 5] [--rows 100]
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx2
import openai

from benchmarks._server import Server, end_with_the_benchmark

POLL_S = 0.01
MARKS = ("answer", "validated", "running", "first step")


def rows(n_rows: int) -> bytes:
    """Return training rows of about thirty tokens."""
    pairs = [(f"Where is parcel {number}?", f"Parcel {number} is in depot {number % 7}.") for number in range(n_rows)]
    messages = [[{"role": "user", "content": asked}, {"role": "assistant", "content": told}] for asked, told in pairs]
    return "\n".join(json.dumps({"messages": each}) for each in messages).encode()


def first_step(client: openai.OpenAI, file: str) -> list[float]:
    """Run one job up to its first step and return the seconds from create to each mark."""
    jobs, marks = client.fine_tuning.jobs, list[float]()
    began = time.perf_counter()
    job = jobs.create(model="tunesmith-nano", training_file=file)
    marks.append(time.perf_counter() - began)
    for reached in ("queued", "running"):
        while job.status not in (reached, "running"):
            if job.status == "failed":
                sys.exit(str(job.error))
            time.sleep(POLL_S)
            job = jobs.retrieve(job.id)
        marks.append(time.perf_counter() - began)
    while jobs.list_events(job.id, limit=1).data[0].type != "metrics":
        time.sleep(POLL_S)
    marks.append(time.perf_counter() - began)
    jobs.cancel(job.id)
    return marks


def wait_for_spares(server: Server, n_spares: int) -> int:
    """Wait until so many spares are ready, and no other is made; return the memory that they hold."""
    with httpx2.Client(base_url=server.url.removesuffix("/v1")) as client:
        while True:
            told = client.get("/tunesmith/v1/spares").json()
            if [spare["status"] for spare in told["data"]] == ["ready"] * n_spares:
                return told["memory_bytes"]
            time.sleep(0.1)


def measure(folder: Path, *, warm: bool, n_rounds: int, n_rows: int) -> tuple[list[list[float]], int]:
    """Return the seconds of every round, and the memory of the spares that waited before the last."""
    with (
        Server(folder, TUNESMITH_WARM_SPARES="1" if warm else "0") as server,
        openai.OpenAI(base_url=server.url, api_key="any", max_retries=0) as client,
    ):
        file = client.files.create(file=("rows.jsonl", rows(n_rows)), purpose="fine-tune").id
        rounds: list[list[float]] = []
        held = 0
        for _ in range(n_rounds + 1):
            held = wait_for_spares(server, 2 if warm else 0)
            rounds.append(first_step(client, file))
    return rounds[1:], held  # in the first round the machine's file cache was not warm


def main() -> None:
    """Measure and print a table."""
    end_with_the_benchmark()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=100)
    asked = parser.parse_args()
    columns: list[str] = []
    for warm in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            rounds, held = measure(Path(folder), warm=warm, n_rounds=asked.rounds, n_rows=asked.rows)
        for number, took in enumerate(zip(*rounds, strict=True)):
            figures = f" {statistics.median(took):.2f} | {min(took):.2f} | {max(took):.2f} |"
            if warm:
                columns[number] += figures
            else:
                columns.append(figures)
    print(f"{asked.rows} rows, {asked.rounds} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"memory of the spares that wait: {held / 1e6:.0f} MB\n")
    print("| seconds from create to | cold, median | shortest | longest | warm, median | shortest | longest |")
    print("|---|---|---|---|---|---|---|")
    for name, figures in zip(MARKS, columns, strict=True):
        print(f"| {name} |{figures}")


if __name__ == "__main__":
    main()
