"""A file of 8 GB in parts: the server's memory while they come and are put together, and how fast that is.

A real server process; four connections send parts of 64 MB each, then `complete` with the md5 of the whole. Memory is the
kernel's high-water mark of the server's resident size. The folder needs twice the file's size on the disk.

    python -m benchmarks.large_upload [--megabytes 8192] [--folder FOLDER]
"""

import argparse
import hashlib
import http.client
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks._server import Server, end_with_the_benchmark

GOAL_GROWTH_MB = 64.0
PART_MB = 64
TEXT = b'{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "yes"}]}\n'
LINE = TEXT % (b"x" * (1024 - len(TEXT) + 2))
BLOCK = LINE * 1024
HEAD = b'--b\r\nContent-Disposition: form-data; name="data"; filename="upload"\r\n\r\n'
TAIL = b"\r\n--b--\r\n"


def ask(port: int, path: str, body: dict[str, object]) -> dict[str, object]:
    """Post JSON and return the answer."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=3600)
    line.request("POST", path, body=json.dumps(body), headers={"Content-Type": "application/json"})
    answer = line.getresponse()
    told = json.loads(answer.read())
    line.close()
    assert answer.status == 200, told
    return told


def send(port: int, upload: str) -> str:
    """Send a part and return its id."""

    def pieces() -> Iterator[bytes]:
        yield HEAD
        for _ in range(PART_MB):
            yield BLOCK
        yield TAIL

    line = http.client.HTTPConnection("127.0.0.1", port, timeout=3600)
    length = len(HEAD) + PART_MB * len(BLOCK) + len(TAIL)
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(length)}
    line.request("POST", f"/v1/uploads/{upload}/parts", body=pieces(), headers=headers)
    answer = line.getresponse()
    told = json.loads(answer.read())
    line.close()
    assert answer.status == 200, told
    return told["id"]


def main() -> int:
    """Upload, print, and return 1 if the server's memory grew by more than the goal."""
    end_with_the_benchmark()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=8192)
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    asked = parser.parse_args()
    assert len(BLOCK) == 1024 * 1024
    n_parts = asked.megabytes // PART_MB
    md5 = hashlib.md5(usedforsecurity=False)
    for _ in range(n_parts * PART_MB):
        md5.update(BLOCK)
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder, Server(Path(folder)) as server:
        before = server.memory_mb("VmRSS")
        server.forget_peak()
        began, used = time.perf_counter(), server.cpu_ms()
        n_bytes = n_parts * PART_MB * len(BLOCK)
        wanted = {"bytes": n_bytes, "filename": "large.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
        upload = ask(server.port, "/v1/uploads", wanted)["id"]
        with ThreadPoolExecutor(4) as senders:
            parts = list(senders.map(lambda _: send(server.port, str(upload)), range(n_parts)))
        sent_s, sent_mb = time.perf_counter() - began, server.memory_mb("VmHWM")
        done = ask(server.port, f"/v1/uploads/{upload}/complete", {"part_ids": parts, "md5": md5.hexdigest()})
        whole_s, whole_mb = time.perf_counter() - began, server.memory_mb("VmHWM")
        print(f"{done['status']}: {n_bytes / 1e9:.2f} GB in {n_parts} parts")
        print(f"parts: {sent_s:.0f} s, {n_bytes / 1e6 / sent_s:.0f} MB/s; complete: {whole_s - sent_s:.0f} s")
        print(f"processor time of the server: {(server.cpu_ms() - used) / 1000:.0f} s")
        print(f"memory: {before:.0f} MB before; at the most {sent_mb:.0f} MB with the parts, {whole_mb:.0f} MB in all")
    return int(whole_mb - before > GOAL_GROWTH_MB)


if __name__ == "__main__":
    sys.exit(main())
