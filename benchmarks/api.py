"""The API over HTTP: latency of list and retrieve with many jobs in the table, and the server's memory during an upload.

A real server process; the client is the standard library's, on one kept-alive connection, so that its own time counts
little. Memory is the kernel's high-water mark of the server's resident size, reset right before the upload.

    python -m benchmarks.api [--jobs 10000] [--requests 1000] [--megabytes 512] [--pairs 5]
"""

import argparse
import http.client
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks._many_jobs import fill
from benchmarks._server import Server, end_with_the_benchmark

GOAL_P99_MS = 20.0
GOAL_GROWTH_MB = 64.0


def connection(server: Server) -> http.client.HTTPConnection:
    """Return a connection that is kept alive."""
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)


def latencies(server: Server, paths: Iterator[str], n_requests: int) -> tuple[list[float], float]:
    """Return the milliseconds of each request, sorted, and the processor time of one."""
    line, took = connection(server), list[float]()
    used = server.cpu_ms()
    for number in range(n_requests + 20):
        path = next(paths)
        began = time.perf_counter()
        line.request("GET", path, headers={"Authorization": "Bearer any"})
        answer = line.getresponse()
        body = answer.read()
        took.append((time.perf_counter() - began) * 1000)
        assert answer.status == 200, body
        if number == 0:
            json.loads(body)
    line.close()
    return sorted(took[20:]), (server.cpu_ms() - used) / len(took)


def row(name: str, took: list[float], cpu_ms: float) -> bool:
    """Print a row of the table and return whether the goal is met."""
    p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
    print(f"| {name} | {p50:.1f} | {p99:.1f} | {took[-1]:.1f} | {cpu_ms:.1f} |", flush=True)
    return p99 < GOAL_P99_MS


def upload(server: Server, megabytes: int) -> tuple[float, float]:
    """Upload a JSONL file and return how many megabytes the server grew meanwhile, and the seconds it took."""
    text = b'{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "yes"}]}\n' % (b"x" * 900)
    block = text * (1024 * 1024 // len(text))
    n_blocks = megabytes * 1024 * 1024 // len(block)
    head = (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="large.jsonl"\r\n\r\n'
    )
    tail = b"\r\n--b--\r\n"

    def pieces() -> Iterator[bytes]:
        yield head
        for _ in range(n_blocks):
            yield block
        yield tail

    line = connection(server)
    before = server.memory_mb("VmRSS")
    server.forget_peak()
    began = time.perf_counter()
    length = len(head) + n_blocks * len(block) + len(tail)
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(length)}
    line.request("POST", "/v1/files", body=pieces(), headers=headers)
    answer = json.loads(line.getresponse().read())
    took = time.perf_counter() - began
    grown = server.memory_mb("VmHWM") - before
    line.request("DELETE", f"/v1/files/{answer['id']}")
    line.getresponse().read()
    line.close()
    return grown, took


def main() -> int:
    """Measure, print two tables, and return 1 unless both goals are met."""
    end_with_the_benchmark()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    randomness = random.Random(0)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        made = fill(Path(folder) / "data", asked.jobs)
        with Server(Path(folder)) as server:
            print(f"{asked.jobs} jobs, {asked.requests} requests each; milliseconds\n")
            print("| request | p50 | p99 | max | processor time of the server |\n|---|---|---|---|---|")
            root = "/v1/fine_tuning/jobs"
            kinds: dict[str, Iterator[str]] = {
                "list, newest 20": iter(lambda: root, None),
                "list, 20 after a random job": iter(lambda: f"{root}?after={randomness.choice(made[20:])}", None),
                "list by metadata": iter(lambda: f"{root}?metadata%5Brun%5D={randomness.randrange(100)}", None),
                "retrieve": iter(lambda: f"{root}/{randomness.choice(made)}", None),
                "events": iter(lambda: f"{root}/{randomness.choice(made)}/events", None),
            }
            met = [row(name, *latencies(server, paths, asked.requests)) for name, paths in kinds.items()]
            good = all(met)
            print(f"\nidle server: {server.memory_mb('VmRSS'):.0f} MB resident")
            grown = [upload(server, asked.megabytes) for _ in range(asked.pairs)]
            sizes = [size for size, _ in grown]
            took = statistics.median(seconds for _, seconds in grown)
            print(
                f"upload of {asked.megabytes} MB, {asked.pairs} times: growth median {statistics.median(sizes):.1f} MB "
                f"({min(sizes):.1f} to {max(sizes):.1f}), {asked.megabytes / took:.0f} MB/s"
            )
            good &= max(sizes) <= GOAL_GROWTH_MB
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
