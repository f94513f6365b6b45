"""The worker as its supervisor's child: started in a session of its own, with a pipe for its reports and one for wishes."""

import contextlib
import os
import signal
from typing import Final, NamedTuple

from tunesmith.supervisor import tree

#: How far a worker stands back, in the scheduler's units: the server and its sampler answer first, training can wait.
NICENESS: Final = 10


class Child(NamedTuple):
    """A started worker."""

    pid: int
    #: Where its reports are read.
    reports: int
    #: Where what its job's owner wants is written.
    control: int


def start(command: list[str], *, log: int) -> Child:
    """Start a worker, bound to this process by a death signal; what it prints goes to `log`."""
    reports, report_write = os.pipe()
    control_read, control = os.pipe()
    environment = dict(os.environ)
    environment["TUNESMITH_REPORT_FD"] = str(report_write)
    environment["TUNESMITH_CONTROL_FD"] = str(control_read)
    for descriptor in (report_write, control_read):
        os.set_inheritable(descriptor, True)
    nothing = os.open(os.devnull, os.O_RDONLY)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            stand_back()
            tree.die_with_parent(parent)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(nothing, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.execve(command[0], command, environment)
        except OSError as error:
            os.write(2, f"{command[0]} does not start: {error}\n".encode())
        finally:
            os._exit(127)
    for descriptor in (report_write, control_read, nothing):
        os.close(descriptor)
    return Child(pid, reports, control)


def stand_back() -> None:
    """Lower the priority before anything is imported; where the kernel shares the processor among sessions, its own."""
    os.nice(NICENESS)
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as group:  # noqa: PTH123 - as in tree.py
        group.write(f"{NICENESS}\n")
