"""What a zygote learns of the host before it leaves it; standard library only."""

import os
import sys
from contextlib import suppress
from typing import Final

from tunesmith.graders.sandbox import namespaces

_PACKAGES: Final = "/packages"


def tree(*, remap: bool) -> namespaces.Tree:
    """Return what an interpreter needs: its library, the graders' packages, the system's shared libraries; no more.

    With `remap` the packages are to be found in a place of their own, wherever they lie outside; `sys.path` follows.
    """
    library = os.path.dirname(os.path.realpath(os.__file__))  # noqa: PTH120 - pathlib is not needed here
    with open("/proc/self/maps") as file:  # noqa: PTH123 - as above
        mapped = {line.split(None, 5)[5].strip() for line in file if ".so" in line}
    shared = {os.path.dirname(os.path.realpath(path)) for path in mapped if path.startswith("/")}  # noqa: PTH120 - as above
    wanted = [library, *sorted(shared), *map(os.path.realpath, ("/usr/share/zoneinfo", "/usr/lib64"))]
    readable = {path: path for path in wanted if os.path.isdir(path)}  # noqa: PTH112 - as above
    masked = {f"{library}/{name}" for name in ("site-packages", "dist-packages")}
    paths = [os.path.realpath(path) for path in sys.path if os.path.isdir(path)]  # noqa: PTH112 - as above
    sys.path[:] = [path for path in paths if path == library or path.startswith(f"{library}/lib-")]
    for path in paths:
        if path in sys.path:
            continue
        inside = f"{_PACKAGES}/{len(sys.path)}" if remap else path
        sys.path.append(inside)
        readable[inside] = path
    return namespaces.Tree(readable, sorted(masked - set(paths)) if not remap else sorted(masked))


def look(shown: namespaces.Tree) -> None:
    """Raise `PermissionError` when the user that we have become cannot read the interpreter's library."""
    for path in shown.readable:
        if not os.access(path, os.R_OK | os.X_OK):
            raise PermissionError(f"{path} cannot be read by the user {os.geteuid()}, which graders run as")


def n_running(user: int) -> int:
    """Return how many processes and threads a user has."""
    found = 0
    for name in os.listdir("/proc"):  # noqa: PTH208 - as above
        if not name.isdigit():
            continue
        with suppress(OSError, IndexError):
            if os.stat(f"/proc/{name}").st_uid == user:  # noqa: PTH116 - as above
                found += len(os.listdir(f"/proc/{name}/task"))  # noqa: PTH208 - as above
    return found


def held_bytes(proc: int) -> int:
    """Return this process's address space; `proc` is /proc, which may lie outside our root by now."""
    descriptor = os.open("self/statm", os.O_RDONLY, dir_fd=proc)
    try:
        return int(os.read(descriptor, 200).split()[0]) * os.sysconf("SC_PAGE_SIZE")
    finally:
        os.close(descriptor)
