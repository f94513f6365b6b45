"""The door of the sampler's process, `python -m tunesmith.sampler`: loads it without looking for garbage on the way."""

import gc
import os
import sys

from tunesmith.core import logs


def run() -> int:
    """Run the process until it ends; return its exit code."""
    logs.configure(form="json")  # the server reads it, and tells it in its own form
    gc.disable()  # what is imported stays: looking through it for garbage takes a sixth of the start
    if "--embedding" in sys.argv:
        from tunesmith.sampler.embedding import main  # noqa: PLC0415 - seconds of torch
    else:
        from tunesmith.sampler.main import main  # noqa: PLC0415 - the same

    gc.freeze()
    gc.enable()
    return main()


if __name__ == "__main__":
    # Skip the interpreter's tear-down: torch's threads make it slow, and nothing here needs it.
    code = run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
