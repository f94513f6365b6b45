"""A worker that reports its start and then does nothing for long."""

import json
import os
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


report("started", "started-1", step=0)
time.sleep(600)
