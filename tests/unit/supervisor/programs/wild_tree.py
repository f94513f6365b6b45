"""A worker that does its worst: deaf to every signal it can be deaf to, with a child in a session of its own and a daemon.

Each process says that it is there by a file in the folder that the first argument names.
"""

import os
import signal
import sys
import time
from pathlib import Path

folder = sys.argv[1]


def deaf(name):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Path(folder, f"here-{name}").touch()
    while True:
        time.sleep(0.2)


if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        deaf("grandchild")
    deaf("session")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        deaf("daemon")
    os._exit(0)
deaf("worker")
