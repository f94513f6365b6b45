"""Named points at every commit, spawn, upload and rename where a test can make the process die or stall.

`TUNESMITH_FAILPOINTS="name=kill,other=sleep:2.5,third=raise,fourth=kill@3"`: `kill` is SIGKILL to this process, `raise` an
`OSError` (no space left on device), `sleep` seconds, said on stderr before; `@N` acts on the N-th visit only. `note:FILE`
appends the name to a file. `*` stands for every point that is not named. Standard library only.
"""

import errno
import os
import signal
import time
from collections import Counter

_VISITS: Counter[str] = Counter()


def _plan() -> dict[str, str]:
    text = os.environ.get("TUNESMITH_FAILPOINTS", "")
    return dict(item.split("=", 1) for item in text.split(",") if "=" in item)


def failpoint(name: str) -> None:
    """Do what the environment asks at `name`; nothing at all unless `TUNESMITH_FAILPOINTS` is set.

    Raises:
        OSError: ENOSPC, when the plan says `raise`.
    """
    if "TUNESMITH_FAILPOINTS" not in os.environ:
        return
    plan = _plan()
    action = plan.get(name, plan.get("*"))
    if action is None:
        return
    _VISITS[name] += 1
    action, _, visit = action.partition("@")
    if visit and int(visit) != _VISITS[name]:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "raise":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    elif action.startswith("note:"):
        with open(action.removeprefix("note:"), "a") as file:  # noqa: PTH123 - pathlib weighs a megabyte in a supervisor
            file.write(f"{name}\n")
    elif action.startswith("sleep:"):
        os.write(2, f"failpoint {name}\n".encode())
        time.sleep(float(action.removeprefix("sleep:")))
