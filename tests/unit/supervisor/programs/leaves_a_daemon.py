"""A worker that ends with code 3 and leaves a daemon behind."""

import os
import sys
import time
from pathlib import Path

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        Path(sys.argv[1], "here-daemon").touch()
        time.sleep(600)
    os._exit(0)
os.wait()
while not Path(sys.argv[1], "here-daemon").exists():
    time.sleep(0.01)
sys.exit(3)
