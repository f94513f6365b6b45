"""The layers around one call, in the order in which they are put on; after the last one a stranger's code may run."""

import os
import resource
import signal
from typing import Final, NamedTuple

from tunesmith.graders.sandbox import kernel, landlock, namespaces, seccomp

N_DESCRIPTORS: Final = 64
#: Threads of one call, beside what the user runs already where that is counted in one number.
N_THREADS: Final = 128
N_FILES: Final = 16384
_MEGABYTE: Final = 1 << 20


class Limits(NamedTuple):
    """What one call may take, as OpenAI's graders may."""

    wall_s: float = 120.0
    memory_bytes: int = 2 << 30
    #: Of scratch files, which lie in memory.
    disk_bytes: int = 1 << 30


class Confinement(NamedTuple):
    """The part of the layers that is the same for every call of a zygote."""

    #: Within namespaces of its own; else Landlock is the wall.
    namespaces: bool
    limits: Limits
    #: The address space that the zygote has itself, with what it has imported.
    held_bytes: int
    #: Processes and threads that the zygote's user had when it started.
    n_running: int
    #: Landlock's rules; within namespaces the kernel may have none.
    rules: landlock.Rules | None
    #: The filter of system calls, where every call has the same number as it sees itself.
    program: bytes | None


def confine(plan: Confinement) -> None:
    """Confine this process, a zygote's fresh child, for good.

    Raises:
        OSError: a layer cannot be put on; nothing of a stranger's may run here.
    """
    if plan.namespaces:
        size = f"size={plan.limits.disk_bytes},mode=1777,nr_inodes={N_FILES}"
        kernel.mount("tmpfs", namespaces.SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, size)
        os.chdir(namespaces.SCRATCH)
    else:
        os.chdir("/")
    kernel.drop_capabilities()
    kernel.die_with_parent(signal.SIGKILL)
    limit(plan)
    kernel.checked(kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1), "prctl(PR_SET_NO_NEW_PRIVS)")
    if plan.rules is not None:
        plan.rules.restrict()
    kernel.filter_system_calls(plan.program or seccomp.program(os.getpid(), scratch=False))


def rules(tree: namespaces.Tree, *, within_namespaces: bool) -> landlock.Rules | None:
    """Return Landlock's rules for every call; None where namespaces must do without.

    Raises:
        OSError: there are no namespaces, nor Landlock.
    """
    if within_namespaces and not landlock.version():
        return None
    made = landlock.Rules()
    if within_namespaces:
        made.allow("/", landlock.READ)
        made.allow(namespaces.AROUND_SCRATCH, landlock.SCRATCH)
    else:
        made.allow_reading(tree.readable, tree.masked)
    for path in namespaces.DEVICES:
        made.allow(path, landlock.DEVICE)
    return made


def limit(plan: Confinement) -> None:
    """Set the resource limits of this process."""
    limits = plan.limits
    # the clock on the wall is the limit that counts; this one ends what a stopped zygote no longer watches
    cpu_s = int(2 * limits.wall_s) + 2
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, plan.held_bytes + limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.disk_bytes),
        (resource.RLIMIT_NOFILE, N_DESCRIPTORS),
        (resource.RLIMIT_NPROC, plan.n_running + N_THREADS),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, N_DESCRIPTORS),
        (resource.RLIMIT_STACK, 8 * _MEGABYTE),
    ):
        hard = resource.getrlimit(kind)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))
