"""A worker that reports three steps and ends."""

import json
import os
import sys
import time


def report(kind, key, **data):
    line = (
        json.dumps(
            {
                "kind": kind,
                "job": os.environ["TUNESMITH_JOB"],
                "attempt": 1,
                "idempotency_key": key,
                "created_at": time.time(),
                "data": data,
                "version": 1,
            }
        )
        + "\n"
    )
    os.write(int(os.environ["TUNESMITH_REPORT_FD"]), line.encode())


for step in (1, 2, 3):
    report("metrics", f"s{step}", step=step)
sys.stderr.write("a line for the log\n")
