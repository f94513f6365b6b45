"""A tree that keeps forking, every child in a session of its own, until it is killed."""

import os
import time

while True:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            time.sleep(60)
        os._exit(0)
    os.wait()
    time.sleep(0.002)
