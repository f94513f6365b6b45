"""A worker that reports as many steps as it is told, flat out."""

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


for step in range(int(sys.argv[1])):
    report("metrics", f"s{step}", step=step)
