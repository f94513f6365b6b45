"""What the kernel tells of the processes that it killed because memory ran out."""

import contextlib
from collections.abc import Iterator


def n_oom_kills(root: str = "/") -> int:
    """Return how many processes the kernel has killed for memory, in our control group where it counts them, else anywhere.

    Where nothing is counted (not Linux) the answer is 0. `root` is where `proc` and `sys` are.
    """
    for path in (*_control_groups(root), f"{root}proc/vmstat"):
        with contextlib.suppress(OSError), open(path) as file:  # noqa: PTH123 - as in tree.py
            for line in file:
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def _control_groups(root: str) -> Iterator[str]:
    """Yield the files in which the control groups of this process count their events, of both generations."""
    with contextlib.suppress(OSError), open(f"{root}proc/self/cgroup") as file:  # noqa: PTH123 - as in tree.py
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if not controllers:
                yield f"{root}sys/fs/cgroup{path}/memory.events"
            elif "memory" in controllers.split(","):
                yield f"{root}sys/fs/cgroup/memory{path}/memory.oom_control"
