"""From create to the first optimizer step: a supervised job of 100 rows on the embedded base, as its owner sees it.

A real server, the `openai` client. One round is one job: the clock starts with the call of create and stops when the
first metrics event can be read; the marks between are statuses and events as they become visible (polled every 10 ms).
The job is cancelled after its first step. The server has nothing warm: the trainer's process starts from nothing.

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


def main() -> None:
    """Measure and print a table."""
    end_with_the_benchmark()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=100)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(Path(folder)) as server,
        openai.OpenAI(base_url=server.url, api_key="any", max_retries=0) as client,
    ):
        file = client.files.create(file=("rows.jsonl", rows(asked.rows)), purpose="fine-tune").id
        first_step(client, file)  # the machine's file cache is warm from here on
        rounds = [first_step(client, file) for _ in range(asked.rounds)]
    print(f"{asked.rows} rows, {asked.rounds} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| seconds from create to | median | shortest | longest |\n|---|---|---|---|")
    for name, took in zip(MARKS, zip(*rounds, strict=True), strict=True):
        print(f"| {name} | {statistics.median(took):.2f} | {min(took):.2f} | {max(took):.2f} |")


if __name__ == "__main__":
    main()
