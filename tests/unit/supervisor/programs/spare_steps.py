"""A spare's worker: says that it is ready, waits for its task, carries its tag, and says what it was told."""

import os
import sys
import time
from pathlib import Path

from tunesmith.core.channel import Report, Task
from tunesmith.supervisor.tag import prove_tag, take_tag

prove_tag()
write, read = int(os.environ["TUNESMITH_REPORT_FD"]), int(os.environ["TUNESMITH_CONTROL_FD"])
os.write(write, b"ready\n")
path = b""
while not path.endswith(b"\n"):
    byte = os.read(read, 1)
    if not byte:
        sys.exit(0)
    path += byte
task = Task.from_json(Path(os.fsdecode(path[:-1])).read_text())
take_tag(task.job, task.attempt)
report = Report("message", task.job, task.attempt, "told", time.time(), {"level": "info", "message": path.decode()})
os.write(write, (report.to_json() + "\n").encode())
if "stay" in sys.argv:
    time.sleep(600)
