"""The kernel's calls that Python has no name for, by ctypes; Linux only, standard library only."""

import ctypes
import os
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_SECCOMP: Final = 22
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

#: `clone`, `pivot_root` and `mount_setattr` by machine; the first two differ, what is newer is the same everywhere.
_CLONE: Final = {"x86_64": 56, "aarch64": 220}
_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR: Final = 442
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000
_MNT_DETACH: Final = 2
_SIGCHLD: Final = 17

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
#: Keeps the interpreter's lock over a call: a fork in one that lets it go would leave a child in which nobody holds it.
_LIBC_LOCKED: Final = ctypes.PyDLL(None, use_errno=True)


def machine() -> str:
    """Return the machine's name as the tables here write it (`x86_64`, `aarch64`)."""
    return os.uname().machine


def checked(answer: int, what: str) -> int:
    """Return a call's answer; raise `OSError` with its error number when it is negative."""
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return answer


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call by its number and return its answer, negative with an error; bytes are passed by address."""
    words = [ctypes.c_char_p(value) if isinstance(value, bytes | None) else ctypes.c_long(value) for value in arguments]
    return int(_LIBC.syscall(ctypes.c_long(number), *words))


def prctl(option: int, *arguments: int) -> int:
    """Return the answer of `prctl`, negative with an error."""
    words = [*arguments, 0, 0, 0, 0][:4]
    return int(_LIBC.prctl(ctypes.c_int(option), *(ctypes.c_ulong(word) for word in words)))


def last_error() -> int:
    """Return the error number of this module's last failed call."""
    return ctypes.get_errno()


def die_with_parent(signal_number: int) -> None:
    """Be sent a signal when the parent's thread that made us ends; a change of user or capabilities makes this void."""
    checked(prctl(PR_SET_PDEATHSIG, signal_number), "prctl(PR_SET_PDEATHSIG)")


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` name for new ones."""
    checked(_LIBC.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount as `mount(2)` does."""
    words = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    options = None if data is None else data.encode()
    checked(_LIBC.mount(*words, ctypes.c_ulong(flags), options), f"mount {source} at {target}")


def restrict_mount(path: str, flags: int, *, recursive: bool) -> None:
    """Add attributes (`MS_RDONLY`, `MS_NOSUID`, `MS_NODEV`, `MS_NOEXEC`) to a mount, and with `recursive` to those in it."""
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd; the four flags have the same numbers as mount(2)'s
    attributes = b"".join(number.to_bytes(8, "little") for number in (flags, 0, 0, 0))
    how = _AT_RECURSIVE if recursive else 0
    answer = syscall(_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), how, attributes, len(attributes))
    checked(answer, f"mount_setattr {path}")


def unmount(path: str) -> None:
    """Take a mount away; what is still held of it is gone with its last holder."""
    checked(_LIBC.umount2(os.fsencode(path), _MNT_DETACH), f"umount {path}")


def change_root(path: str) -> None:
    """Make a mounted folder the root, and take the old root away from it."""
    os.chdir(path)
    checked(syscall(_PIVOT_ROOT[machine()], b".", b"."), "pivot_root")
    checked(_LIBC.umount2(b".", _MNT_DETACH), "umount of the old root")
    os.chdir("/")


def fork_into(flags: int) -> int:
    """Fork into the new namespaces that `flags` name: 0 in the child, its number in the parent.

    Raises:
        OSError: no child was made.
    """
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    zero = ctypes.c_long(0)
    pid = _LIBC_LOCKED.syscall(ctypes.c_long(_CLONE[machine()]), ctypes.c_long(flags | _SIGCHLD), zero, zero, zero, zero)
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0
    number = ctypes.get_errno()
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, f"clone: {os.strerror(number)}")
    return int(pid)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


_CAPABILITY_VERSION_3: Final = 0x20080522


def drop_capability_bounds() -> None:
    """See to it that no program which is run from here on has capabilities, its file's own among them."""
    number = 0
    while prctl(PR_CAPBSET_DROP, number) == 0:
        number += 1


def drop_capabilities() -> None:
    """Give up every capability for good: ambient, effective, permitted, inheritable."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    checked(_LIBC.capset(ctypes.byref(header), ctypes.byref(none)), "capset")


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def filter_system_calls(program: bytes) -> None:
    """Put this thread, and what it starts, under a BPF program for good; needs `no_new_privs`."""
    seccomp_mode_filter = 2
    form = _FilterProgram(len(program) // 8, program)
    answer = _LIBC.prctl(
        ctypes.c_int(PR_SET_SECCOMP),
        ctypes.c_ulong(seccomp_mode_filter),
        ctypes.byref(form),
        ctypes.c_ulong(0),
        ctypes.c_ulong(0),
    )
    checked(answer, "prctl(PR_SET_SECCOMP)")
