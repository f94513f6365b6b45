"""A tree of processes: taking charge of it, killing all of it, finding what escaped by its environment tag.

Linux gives the sub-reaper, death signals and `/proc`. Elsewhere (macOS) the tree is the worker's process group: a child
that leaves its group outlives a kill there, and nothing can be found by its tag.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from tunesmith.core.environment import ATTEMPT_TAG, JOB_TAG

LINUX: Final = sys.platform == "linux"

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_READ: Final = 65536


class Tagged(NamedTuple):
    """A process that carries an attempt's tag."""

    pid: int
    job: str
    attempt: int


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent dies, daemons included."""
    if LINUX and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def die_with_parent(parent: int) -> None:
    """Called in a fresh child: be killed with -9 when `parent`, its maker, dies; exit at once if it died already."""
    if LINUX and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        os._exit(127)
    if os.getppid() != parent:
        os._exit(127)


def _proc(pid: int, name: str) -> bytes:
    """Return the start of `/proc/PID/NAME`; empty when the process is gone or not ours to read."""
    try:
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY)
    except OSError:
        return b""
    try:
        parts: list[bytes] = []
        while part := os.read(descriptor, _READ):
            parts.append(part)
            if len(part) < _READ and name == "stat":
                break
        return b"".join(parts)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _pids() -> Iterator[int]:
    if not LINUX:
        return
    for name in os.listdir("/proc"):  # noqa: PTH208 - a Path for every process costs more than the whole look
        if name.isdigit():
            yield int(name)


def _fields(pid: int) -> list[bytes]:
    """Return the fields of `/proc/PID/stat` from the state on: state, parent, …; start time is the twentieth."""
    return _proc(pid, "stat").rpartition(b")")[2].split()


def boot_id() -> str:
    """Return what names this boot of the machine; empty where the system does not say."""
    if not LINUX:
        return ""
    with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123 - pathlib weighs a megabyte in a supervisor
        return file.read().strip()


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when there is none, or a zombie only."""
    if not LINUX:
        try:
            os.kill(pid, 0)
        except OSError:
            return None
        return 0
    fields = _fields(pid)
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


def descendants(root: int) -> list[int]:
    """Return the living processes below `root`, children before grandchildren."""
    children: dict[int, list[tuple[int, bool]]] = {}
    for pid in _pids():
        fields = _fields(pid)
        if len(fields) > 1:
            children.setdefault(int(fields[1]), []).append((pid, fields[0] not in (b"Z", b"X")))
    found: list[int] = []
    waiting = [root]
    while waiting:
        for pid, living in children.get(waiting.pop(0), []):
            waiting.append(pid)
            if living:
                found.append(pid)
    return found


def _signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def kill_all(pids: list[int]) -> None:
    """Stop every process, so that none can fork out of reach, then kill every one."""
    _signal_all(pids, signal.SIGSTOP)
    _signal_all(pids, signal.SIGKILL)


def kill_descendants(group: int | None = None) -> int:
    """Kill everything below this process, which must have adopted its orphans; return how many were killed.

    Returns when no child is left, zombies reaped. `group` is the worker's process group, all there is to kill off Linux.
    """
    n_killed = 0
    while True:
        if group is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        found = descendants(os.getpid())
        kill_all(found)
        n_killed += len(found)
        try:
            # what is killed comes back here by death of its parent, what was born meanwhile shows in the next look
            os.waitpid(-1, 0)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return n_killed


def tagged(job: str | None = None, attempt: int | None = None) -> list[Tagged]:
    """Return the living processes of this user that carry a tag: anyone's, a job's, or one attempt's."""
    wanted = f"{JOB_TAG}={job if job is not None else ''}".encode()
    own = os.getpid()
    found: list[Tagged] = []
    for pid in _pids():
        environment = _proc(pid, "environ")
        if wanted not in environment or pid == own:
            continue
        process = _tag(pid, environment)
        if process is None or (job is not None and process.job != job):
            continue
        if (attempt is None or process.attempt == attempt) and start_time(pid) is not None:
            found.append(process)
    return found


def carries(pid: int, job: str, attempt: int) -> bool:
    """Say whether a process carries exactly this tag, for everyone to see."""
    return _tag(pid, _proc(pid, "environ")) == Tagged(pid, job, attempt)


def _tag(pid: int, environment: bytes) -> Tagged | None:
    name = _variable(environment, JOB_TAG).decode(errors="replace")
    number = _variable(environment, ATTEMPT_TAG)
    return Tagged(pid, name, int(number)) if name and number.isdigit() else None


def _variable(environment: bytes, name: str) -> bytes:
    _, found, rest = (b"\0" + environment).partition(b"\0" + name.encode() + b"=")
    return rest.partition(b"\0")[0] if found else b""


def sweep(job: str, attempt: int | None = None, *, n_looks: int = 100) -> int:
    """Kill whatever carries the tag, again until nothing does, at most `n_looks` times; return how many were found."""
    seen: set[int] = set()
    for _ in range(n_looks):
        found = [process.pid for process in tagged(job, attempt)]
        if not found:
            break
        seen.update(found)
        kill_all(found)
        time.sleep(0.005)
    return len(seen)
