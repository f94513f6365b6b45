"""A worker in the middle of calls of python graders, one of which has started threads: beside it, as a trainer has them."""

import os
import signal
import sys
import time
from pathlib import Path

from tunesmith.core.clock import SystemClock
from tunesmith.graders.base import Sample
from tunesmith.graders.sandbox.environment import Environment
from tunesmith.graders.sandbox.pool import Sandbox
from tunesmith.worker.grading import GradingLoop

SLEEPS = "import time\ndef grade(sample, item):\n    time.sleep(600)\n    return 1"
SPINS = (
    "import threading, time\ndef spin():\n    while True: pass\n"
    "def grade(sample, item):\n    for _ in range(3): threading.Thread(target=spin, daemon=True).start()\n"
    "    time.sleep(600)\n    return 1"
)
ONE = "def grade(sample, item):\n    return 1"

folder, level = Path(sys.argv[1]), sys.argv[2]
# a root's own interpreter may lie where nobody else looks; the reduced level has no mounts to show it
closed = os.geteuid() == 0 and any(not outer.stat().st_mode & 1 for outer in Path(sys.base_prefix).parents)
python = "/usr/bin/python3" if level == "reduced" and closed else None
sandbox = Sandbox(Environment(folder / "grader-env", python=python), level=level)
grading = GradingLoop(SystemClock(), sandbox)
if grading.run(sandbox.found()).level == "none":
    (folder / "none").touch()
    signal.pause()
assert grading.run(grading.tools.python.grade(ONE, Sample.of_text(""))) == 1
for source in (SLEEPS, SPINS):
    grading.begin(grading.tools.python.grade(source, Sample.of_text("")))
time.sleep(0.3)
(folder / "told").write_text(str(os.getpid()))
(folder / "told").rename(folder / "grading")
time.sleep(600)
