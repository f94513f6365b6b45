"""A worker that ends with code 3 and leaves a daemon behind."""

import os, sys, time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1] + "/here-daemon", "w").close()
        time.sleep(600)
    os._exit(0)
os.wait()
while not os.path.exists(sys.argv[1] + "/here-daemon"):
    time.sleep(0.01)
sys.exit(3)
