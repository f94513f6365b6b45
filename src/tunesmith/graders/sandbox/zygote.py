"""The zygote: a process that has imported what graders import, and forks a confined child for each call.

Its one argument is JSON of `Config`, its standard input the control socket, of packets. It answers `READY`, or `FAILED` and
why it cannot be one. A request is `CALL` with the descriptors of the job and of the answer, or with none to kill a call; a
report is `ENDED`. It never runs a stranger's code itself, and ends with the server: when the socket does, and by a death
signal.
"""

import fcntl
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from contextlib import nullcontext, suppress
from typing import Any, Final, NamedTuple

from tunesmith.graders.sandbox import call, host, kernel, layers, namespaces, packages, seccomp

READY: Final = b"READY"
FAILED: Final = b"F"
#: Number of the call, its wall clock in milliseconds (0: kill the call).
CALL: Final = struct.Struct("<QQ")
#: Number of the call, how it ended (as `waitpid` tells), whether it was killed for its time. A status of -1: never begun.
ENDED: Final = struct.Struct("<QiB")

#: Graders come after answers.
NICENESS: Final = 5

_CONTROL: Final = 0
_ANSWER: Final = 3
_JOB: Final = 4
_RULES: Final = 5
_FIRST_FREE: Final = 64
_LAST: Final = 1 << 16
_ENVIRONMENT: Final = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "TMPDIR": "/tmp",
    # threads of a library's own would be lost in a fork, and their locks with them
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class Config(NamedTuple):
    """What a zygote is told by its server."""

    #: The process that is to be its parent.
    parent: int
    #: Where this program's own package lies; taken from `sys.path` before anything else is imported.
    package: str
    namespaces: bool
    #: Who it becomes when the server is root.
    user: int
    modules: tuple[str, ...]
    limits: layers.Limits

    def to_json(self) -> str:
        """Return the config as JSON."""
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Read a config back."""
        values: dict[str, Any] = json.loads(text)
        values |= {"modules": tuple(values["modules"]), "limits": layers.Limits(*values["limits"])}
        return cls(**values)


class _Running(NamedTuple):
    number: int
    pid: int
    ends_at: float


def main(text: str) -> None:
    """Be a zygote until the control socket ends; never returns."""
    config = Config.from_json(text)
    control = socket.socket(fileno=os.dup(_CONTROL))
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.close(nothing)
    try:
        plan = _prepare(config)
    except (OSError, ValueError, KeyError) as error:
        control.send(FAILED + str(error).encode("utf-8", "replace")[:4000])
        os._exit(1)
    control.send(READY)
    _serve(control, plan)


def _prepare(config: Config) -> layers.Confinement:
    """Give up what a zygote needs not, import what graders need, and return how calls are to be confined."""
    _die_with(config.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError):  # when memory runs out, a grader is to go before the server
        _write("/proc/self/oom_score_adj", b"800")
    os.nice(NICENESS)
    with suppress(OSError):  # where the kernel shares processors between sessions, ours counts as one
        _write("/proc/self/autogroup", str(NICENESS).encode())
    os.environ.clear()
    os.environ.update(_ENVIRONMENT)
    sys.dont_write_bytecode = True
    while config.package in sys.path:
        sys.path.remove(config.package)
    tree = host.tree(remap=config.namespaces)
    n_running = 0 if os.geteuid() == 0 else host.n_running(os.geteuid())
    statistics = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    _leave_host(config, tree)
    folders = [f"{path}/{packages.CORPORA_FOLDER}" for path in sys.path]
    # where nltk looks for its corpora, as it finds when it is imported
    os.environ["NLTK_DATA"] = os.pathsep.join(filter(os.path.isdir, folders))
    with namespaces.scratch(config.limits.disk_bytes) if config.namespaces else nullcontext():
        for name in config.modules:
            with suppress(Exception):  # a grader that imports it is told why it cannot
                importlib.import_module(name)
    held = host.held_bytes(statistics)
    os.close(statistics)
    rules = layers.rules(tree, within_namespaces=config.namespaces)
    if rules is not None:
        rules.move(_FIRST_FREE)  # out of the way of the numbers that a call's descriptors get
    kernel.drop_capability_bounds()
    program = seccomp.program(1, scratch=True) if config.namespaces else None
    call.rehearse()
    for name in [name for name in sys.modules if name.partition(".")[0] == "tunesmith"]:
        del sys.modules[name]
    gc.collect()
    gc.freeze()
    kernel.checked(kernel.prctl(kernel.PR_SET_DUMPABLE, 0), "prctl(PR_SET_DUMPABLE)")
    return layers.Confinement(config.namespaces, config.limits, held, n_running, rules, program)


def _leave_host(config: Config, tree: namespaces.Tree) -> None:
    """Become the user that graders run as, in namespaces of our own where there are some."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        user = group = config.user
        os.setgroups([])
    if config.namespaces:
        namespaces.enter(tree, user, group)
        _die_with(config.parent)  # which a change of user makes void
        _become_first()
        return
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    kernel.drop_capabilities()
    _die_with(config.parent)
    host.look(tree)


def _die_with(parent: int) -> None:
    """Be killed when the server is, from now on; end at once if it is gone already."""
    kernel.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _become_first() -> None:
    """Go on as the first process of the new process namespace; this one waits for its end."""
    pid = os.fork()
    if pid:
        os.closerange(3, _LAST)
        os.waitpid(pid, 0)
        os._exit(0)
    kernel.die_with_parent(signal.SIGKILL)


def _write(path: str, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text)
    finally:
        os.close(descriptor)


def _serve(control: socket.socket, plan: layers.Confinement) -> None:
    """Fork for every call that the server sends, and end those whose time is over; never returns."""
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    running: dict[int, _Running] = {}
    late: set[int] = set()
    while True:
        next_end = min((one.ends_at for one in running.values() if one.number not in late), default=None)
        wait_s = None if next_end is None else max(0.0, next_end - time.monotonic())
        for key, _ in selector.select(wait_s):
            if key.fileobj is control:
                _hear(control, selector, running, plan)
            else:
                _collect(control, selector, running, late, key.fd)
        now = time.monotonic()
        for watch, one in running.items():
            if one.ends_at <= now and one.number not in late:
                late.add(one.number)
                signal.pidfd_send_signal(watch, signal.SIGKILL)


def _hear(
    control: socket.socket, selector: selectors.BaseSelector, running: dict[int, _Running], plan: layers.Confinement
) -> None:
    message, descriptors, _, _ = socket.recv_fds(control, CALL.size, 2)
    if not message:
        os._exit(0)
    number, wall_ms = CALL.unpack(message)
    if not wall_ms:
        for watch, one in running.items():
            if one.number == number:
                signal.pidfd_send_signal(watch, signal.SIGKILL)
        return
    job, answer = descriptors
    pid = -1
    try:
        pid = kernel.fork_into(namespaces.OF_A_CALL) if plan.namespaces else os.fork()
    except OSError:
        control.send(ENDED.pack(number, -1, 0))
    if pid == 0:
        _be_call(job, answer, plan)
    os.close(job)
    os.close(answer)
    if pid < 0:
        return
    watch = os.pidfd_open(pid)
    running[watch] = _Running(number, pid, time.monotonic() + wall_ms / 1000)
    selector.register(watch, selectors.EVENT_READ)


def _collect(
    control: socket.socket, selector: selectors.BaseSelector, running: dict[int, _Running], late: set[int], watch: int
) -> None:
    one = running.pop(watch)
    selector.unregister(watch)
    os.close(watch)
    _, status = os.waitpid(one.pid, 0)
    control.send(ENDED.pack(one.number, status, one.number in late))
    late.discard(one.number)


def _be_call(job: int, answer: int, plan: layers.Confinement) -> None:
    """Become one call: hold nothing but its two descriptors, put the layers on, run it; never returns."""
    try:
        answer = fcntl.fcntl(answer, fcntl.F_DUPFD, _FIRST_FREE)
        job = fcntl.fcntl(job, fcntl.F_DUPFD, _FIRST_FREE)
        os.dup2(answer, _ANSWER)
        os.dup2(job, _JOB)
        if plan.rules is not None:
            plan.rules.move(_RULES)
        os.closerange(_JOB + 1 if plan.rules is None else _RULES + 1, _LAST)
        text = _read(_JOB)
        layers.confine(plan)
        os.close(_JOB)
    except (OSError, ValueError, MemoryError) as error:
        os.write(_ANSWER, call.SETUP + str(error).encode("utf-8", "replace")[:1000])
    else:
        call.run(text, _ANSWER)
    finally:
        os._exit(1)  # whatever happened, this process is no zygote


def _read(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0)
