"""The list of system calls that a grader may make, as a BPF program: what is not on it is refused with an error number.

There is no `socket`, no `execve`, no `fork`, no `memfd_create`; what is allowed in part is looked at by its arguments. A
call of another machine's form (32-bit, x32) ends the process.
"""

import errno
import struct
from typing import Final, NamedTuple

from tunesmith.graders.sandbox import kernel


class _Machine(NamedTuple):
    audit: int
    numbers: dict[str, int]


#: Allowed whatever the arguments.
_FREE: Final = (
    "read", "write", "readv", "writev", "pread64", "pwrite64", "lseek", "close", "close_range", "dup", "dup2", "dup3",
    "pipe", "pipe2", "fstat", "newfstatat", "stat", "lstat", "statx", "open", "openat", "access", "faccessat",
    "faccessat2", "readlink", "readlinkat", "getdents64", "getcwd", "chdir", "fchdir", "ftruncate", "fallocate",
    "fadvise64", "fsync", "fdatasync", "flock",
    "umask", "statfs", "fstatfs", "mmap", "munmap", "mremap", "mprotect", "madvise", "msync", "brk",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigtimedwait", "sigaltstack", "select",
    "pselect6", "poll", "ppoll", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "eventfd2", "recvfrom",
    "shutdown", "getsockname", "getpeername", "getsockopt", "pause", "nanosleep", "clock_nanosleep", "clock_gettime",
    "clock_getres", "gettimeofday", "time", "getitimer", "setitimer", "alarm", "times", "getrusage", "getpid",
    "gettid", "getppid", "getpgid", "getpgrp", "getsid", "getuid", "geteuid", "getgid", "getegid", "getresuid",
    "getresgid", "getgroups", "getrlimit", "uname", "sysinfo", "sched_yield", "sched_getaffinity",
    "sched_get_priority_max", "sched_get_priority_min", "getcpu", "getrandom", "futex", "set_robust_list",
    "set_tid_address", "rseq", "membarrier", "restart_syscall", "wait4", "waitid", "exit", "exit_group",
)  # fmt: skip
#: Allowed where there are scratch files. Elsewhere every file is the host's, and Landlock knows nothing of modes and times.
_OF_SCRATCH: Final = (
    "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat", "symlink",
    "symlinkat", "creat", "truncate", "chmod", "fchmod", "fchmodat", "utimensat",
)  # fmt: skip
#: Allowed with some arguments only; `clone3` takes them where no filter can look, so it is said to be missing.
_LOOKED_AT: Final = ("clone", "clone3", "fcntl", "ioctl", "prctl", "prlimit64", "sendto", "socketpair", "tgkill")

_X86_64: Final = {
    "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8, "mmap": 9,
    "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15,
    "ioctl": 16, "pread64": 17, "pwrite64": 18, "readv": 19, "writev": 20, "access": 21, "pipe": 22, "select": 23,
    "sched_yield": 24, "mremap": 25, "msync": 26, "madvise": 28, "dup": 32, "dup2": 33, "pause": 34, "nanosleep": 35,
    "getitimer": 36, "alarm": 37, "setitimer": 38, "getpid": 39, "sendto": 44, "recvfrom": 45, "shutdown": 48,
    "getsockname": 51, "getpeername": 52, "socketpair": 53, "getsockopt": 55, "clone": 56, "exit": 60, "wait4": 61,
    "uname": 63, "fcntl": 72, "flock": 73, "fsync": 74, "fdatasync": 75, "truncate": 76, "ftruncate": 77,
    "getcwd": 79, "chdir": 80, "fchdir": 81, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86,
    "unlink": 87, "symlink": 88, "readlink": 89, "chmod": 90, "fchmod": 91, "umask": 95, "gettimeofday": 96,
    "getrlimit": 97, "getrusage": 98, "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107,
    "getegid": 108, "getppid": 110, "getpgrp": 111, "getgroups": 115, "getresuid": 118, "getresgid": 120,
    "getpgid": 121, "getsid": 124, "rt_sigpending": 127, "rt_sigtimedwait": 128, "sigaltstack": 131, "statfs": 137,
    "fstatfs": 138, "sched_get_priority_max": 146, "sched_get_priority_min": 147, "prctl": 157, "gettid": 186,
    "time": 201, "futex": 202, "sched_getaffinity": 204, "getdents64": 217, "set_tid_address": 218,
    "restart_syscall": 219, "fadvise64": 221, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230,
    "exit_group": 231, "epoll_wait": 232, "epoll_ctl": 233, "tgkill": 234, "waitid": 247, "openat": 257,
    "mkdirat": 258, "newfstatat": 262, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266,
    "readlinkat": 267, "fchmodat": 268, "faccessat": 269, "pselect6": 270, "ppoll": 271, "set_robust_list": 273,
    "utimensat": 280, "epoll_pwait": 281, "fallocate": 285, "eventfd2": 290, "epoll_create1": 291, "dup3": 292,
    "pipe2": 293, "prlimit64": 302, "getcpu": 309, "renameat2": 316, "getrandom": 318, "membarrier": 324,
    "statx": 332, "rseq": 334, "clone3": 435, "close_range": 436, "faccessat2": 439,
}  # fmt: skip
_AARCH64: Final = {
    "getcwd": 17, "eventfd2": 19, "epoll_create1": 20, "epoll_ctl": 21, "epoll_pwait": 22, "dup": 23, "dup3": 24,
    "fcntl": 25, "ioctl": 29, "flock": 32, "mkdirat": 34, "unlinkat": 35, "symlinkat": 36, "linkat": 37,
    "renameat": 38, "statfs": 43, "fstatfs": 44, "truncate": 45, "ftruncate": 46, "fallocate": 47, "faccessat": 48,
    "chdir": 49, "fchdir": 50, "fchmod": 52, "fchmodat": 53, "openat": 56, "close": 57, "pipe2": 59, "getdents64": 61,
    "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67, "pwrite64": 68, "pselect6": 72,
    "ppoll": 73, "readlinkat": 78, "newfstatat": 79, "fstat": 80, "fsync": 82, "fdatasync": 83, "utimensat": 88,
    "exit": 93, "exit_group": 94, "waitid": 95, "set_tid_address": 96, "futex": 98, "set_robust_list": 99,
    "nanosleep": 101, "getitimer": 102, "setitimer": 103, "clock_gettime": 113, "clock_getres": 114,
    "clock_nanosleep": 115, "sched_getaffinity": 123, "sched_yield": 124, "sched_get_priority_max": 125,
    "sched_get_priority_min": 126, "restart_syscall": 128, "tgkill": 131, "sigaltstack": 132, "rt_sigaction": 134,
    "rt_sigprocmask": 135, "rt_sigpending": 136, "rt_sigtimedwait": 137, "rt_sigreturn": 139, "getresuid": 148,
    "getresgid": 150, "times": 153, "getpgid": 155, "getsid": 156, "getgroups": 158, "uname": 160, "getrlimit": 163,
    "getrusage": 165, "umask": 166, "prctl": 167, "getcpu": 168, "gettimeofday": 169, "getpid": 172, "getppid": 173,
    "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179, "socketpair": 199,
    "getsockname": 204, "getpeername": 205, "sendto": 206, "recvfrom": 207, "getsockopt": 209, "shutdown": 210,
    "brk": 214, "munmap": 215, "mremap": 216, "clone": 220, "mmap": 222, "fadvise64": 223, "mprotect": 226,
    "msync": 227, "madvise": 233, "wait4": 260, "prlimit64": 261, "renameat2": 276, "getrandom": 278,
    "membarrier": 283, "statx": 291, "rseq": 293, "clone3": 435, "close_range": 436, "faccessat2": 439,
}  # fmt: skip
MACHINES: Final = {"x86_64": _Machine(0xC000003E, _X86_64), "aarch64": _Machine(0xC00000B7, _AARCH64)}

#: Of struct seccomp_data: the call's number, the machine, the lower halves of the arguments (of a pointer both).
_NUMBER, _AUDIT, _ARGUMENT_0, _ARGUMENT_1, _ARGUMENT_4, _ARGUMENT_4_HIGH = 0, 4, 16, 24, 48, 52
_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN, _AND, _JUMP = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54, 0x05
_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_X32_BIT: Final = 0x40000000

_CLONE_THREAD: Final = 0x00010000
_NAMESPACES: Final = (
    kernel.CLONE_NEWNS | kernel.CLONE_NEWCGROUP | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET
)  # fmt: skip
#: F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_DUPFD_CLOEXEC, F_GET_SEALS. F_SETOWN would have the kernel send
#: signals to others, F_SETPIPE_SZ take its memory.
_FCNTL: Final = (0, 1, 2, 3, 4, 5, 1030, 1034)
#: F_SETLK, F_SETLKW: nobody else sees these files, and locks without number would fill the kernel's memory: said to be done.
_FCNTL_LOCKS: Final = (6, 7)
#: TCGETS (is it a terminal?), FIONREAD, FIOCLEX, FIONCLEX, FIONBIO.
_IOCTL: Final = (0x5401, 0x541B, 0x5451, 0x5450, 0x5421)
#: PR_SET_NAME, PR_GET_NAME.
_PRCTL: Final = (15, 16)
_AF_UNIX: Final = 1
_SOCK_STREAM: Final = 1
_SOCK_FLAGS: Final = 0o2004000


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, operand & 0xFFFFFFFF)


def _refuse(number: int) -> bytes:
    return _instruction(_RETURN, 0x00050000 | number)


_PASS: Final = _instruction(_RETURN, _ALLOW)


def _only(argument: int, values: tuple[int, ...], error: int) -> bytes:
    """Allow when the lower half of an argument is one of `values`."""
    tests = [_instruction(_EQUAL, value, len(values) - place, 0) for place, value in enumerate(values)]
    return b"".join((_instruction(_LOAD, argument), *tests, _refuse(error), _PASS))


def _threads_only() -> bytes:
    return b"".join(
        (
            _instruction(_LOAD, _ARGUMENT_0),
            _instruction(_ANY_BIT, _NAMESPACES, 2, 0),
            _instruction(_ANY_BIT, _CLONE_THREAD, 0, 1),
            _PASS,
            _refuse(errno.EPERM),
        )
    )


def _stream_pairs_only() -> bytes:
    """asyncio wakes itself by a pair of streams; a datagram socket of a pair could send to any path."""
    return b"".join(
        (
            _instruction(_LOAD, _ARGUMENT_0),
            _instruction(_EQUAL, _AF_UNIX, 0, 3),
            _instruction(_LOAD, _ARGUMENT_1),
            _instruction(_AND, ~_SOCK_FLAGS),
            _instruction(_EQUAL, _SOCK_STREAM, 1, 0),
            _refuse(errno.EACCES),
            _PASS,
        )
    )


def _files_own() -> bytes:
    locks = [_instruction(_EQUAL, value, 0, 1) + _refuse(0) for value in _FCNTL_LOCKS]
    return b"".join((_instruction(_LOAD, _ARGUMENT_1), *locks, _only(_ARGUMENT_1, _FCNTL, errno.EPERM)))


def _no_address() -> bytes:
    """The address is a pointer: one whose lower half alone is nought is an address too."""
    return b"".join(
        (
            _instruction(_LOAD, _ARGUMENT_4),
            _instruction(_EQUAL, 0, 0, 2),
            _instruction(_LOAD, _ARGUMENT_4_HIGH),
            _instruction(_EQUAL, 0, 1, 0),
            _refuse(errno.EACCES),
            _PASS,
        )
    )


def _ranges(answers: dict[int, bytes]) -> list[tuple[int, bytes]]:
    """Return the number from which on each answer is given, the calls between them refused; the first one is 0."""
    starts: list[tuple[int, bytes]] = []
    for number in range(max(answers) + 2):
        answer = answers.get(number, _refuse(errno.EPERM))
        if not starts or starts[-1][1] != answer:
            starts.append((number, answer))
    return starts


def _search(ranges: list[tuple[int, bytes]]) -> bytes:
    """Return the search for a call's number by halves: the kernel walks through it once for every call that there is."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    lower, upper = _search(ranges[:middle]), _search(ranges[middle:])
    beyond = _instruction(_JUMP, len(lower) // 8)  # the short jumps of a comparison do not reach
    return b"".join((_instruction(_GREATER, ranges[middle][0], 0, 1), beyond, lower, upper))


def program(pid: int, *, scratch: bool, machine: str | None = None) -> bytes:
    """Return the filter for a process: `pid` is its own number as it sees it, the only one that it may signal.

    With `scratch` it may make and change files, as far as there is a place for them. `machine` is this one unless named.

    Raises:
        KeyError: this machine's calls are not known here.
    """
    machine = machine or kernel.machine()
    audit, numbers = MACHINES[machine]
    looked_at = {
        "clone": _threads_only(),
        "clone3": _refuse(errno.ENOSYS),
        "fcntl": _files_own(),
        "ioctl": _only(_ARGUMENT_1, _IOCTL, errno.ENOTTY),
        "prctl": _only(_ARGUMENT_0, _PRCTL, errno.EPERM),
        "prlimit64": _only(_ARGUMENT_0, (0,), errno.EPERM),
        "sendto": _no_address(),
        "socketpair": _stream_pairs_only(),
        "tgkill": _only(_ARGUMENT_0, (pid,), errno.EPERM),
    }
    parts = [_instruction(_LOAD, _AUDIT), _instruction(_EQUAL, audit, 1, 0), _instruction(_RETURN, _KILL)]
    parts.append(_instruction(_LOAD, _NUMBER))
    if machine == "x86_64":
        parts += [_instruction(_GREATER, _X32_BIT, 0, 1), _instruction(_RETURN, _KILL)]
    answers = {numbers[name]: looked_at[name] for name in _LOOKED_AT}
    free = (*_FREE, *_OF_SCRATCH) if scratch else _FREE
    answers |= {numbers[name]: _PASS for name in free if name in numbers}  # newer machines never had the older calls
    parts.append(_search(_ranges(answers)))
    return b"".join(parts)
