"""A root of its own for a zygote: new namespaces, a small tree of read-only mounts, and nothing of the host beside it."""

import os
import socket
import stat
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from tunesmith.graders.sandbox import kernel

DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/urandom")
#: The folder that is made the root; it is there on every system, and what is mounted on it is seen by the zygote alone.
_BASE: Final = "/tmp"
#: Where every call has a folder for scratch files to itself, also called /tmp. Landlock's rule for what lies in a mount is
#: one for the folder around it, so that it need not be made for every mount anew.
AROUND_SCRATCH: Final = "/scratch"
SCRATCH: Final = f"{AROUND_SCRATCH}/tmp"
_TMP: Final = "/tmp"
_READ_ONLY: Final = kernel.MS_RDONLY | kernel.MS_NOSUID
_ALL: Final = (
    kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS | kernel.CLONE_NEWCGROUP
)  # fmt: skip
#: What each call has anew: no process of another call, no file, no shared memory.
OF_A_CALL: Final = kernel.CLONE_NEWPID | kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC


class Tree(NamedTuple):
    """What can be read inside: folders by their paths there, with their paths outside; and those in them that are empty."""

    readable: Mapping[str, str]
    masked: Sequence[str]


def enter(tree: Tree, user: int, group: int) -> None:
    """Leave the host: new namespaces, in which `user` is root, and `tree` as the only files; /proc is gone.

    The process itself stays outside the new process namespace: its next child is the first one there.

    Raises:
        OSError: the host does not allow it; this process is to end.
    """
    _leave(user, group)
    sources = [(path, os.open(outside, os.O_PATH | os.O_CLOEXEC)) for path, outside in _mounts(tree)]
    # in the new user namespace 0 is `user` outside; the sources were opened as who we were, who may see more
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    kernel.checked(kernel.prctl(kernel.PR_SET_DUMPABLE, 1), "prctl(PR_SET_DUMPABLE)")
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", _BASE, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    for path, descriptor in sources:
        _bind(path, descriptor)
    for path in tree.masked:
        if os.path.isdir(_BASE + path):  # noqa: PTH112 - pathlib weighs more than the rest of this program
            kernel.mount("tmpfs", _BASE + path, "tmpfs", _READ_ONLY | kernel.MS_NODEV, "size=4k,mode=755")
    os.makedirs(_BASE + SCRATCH)  # noqa: PTH103 - as above
    os.symlink(SCRATCH, _BASE + _TMP)  # noqa: PTH211 - as above
    _link_alike()
    kernel.change_root(_BASE)
    kernel.restrict_mount("/", _READ_ONLY | kernel.MS_NODEV, recursive=False)
    socket.sethostname("grader")


@contextmanager
def scratch(n_bytes: int) -> Generator[None]:
    """Have a folder for scratch files for a while, which is empty and no call's: some packages want one to be imported."""
    kernel.mount("tmpfs", SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, f"size={n_bytes},mode=700")
    try:
        yield
    finally:
        kernel.unmount(SCRATCH)


def _leave(user: int, group: int) -> None:
    """Leave the host's namespaces; who the root inside is outside is written by a helper that stays there."""
    ask_read, ask_write = os.pipe()
    answer_read, answer_write = os.pipe()
    me = os.getpid()
    helper = os.fork()
    if helper == 0:
        done = b"0"
        try:
            os.close(ask_write)
            if os.read(ask_read, 1):
                _map(me, user, group)
                done = b"1"
        finally:
            os.write(answer_write, done)
            os._exit(0)
    try:
        kernel.unshare(_ALL)
        os.write(ask_write, b"1")
        if os.read(answer_read, 1) != b"1":
            raise PermissionError("the user namespace's map of users cannot be written")
    finally:
        for descriptor in (ask_read, ask_write, answer_read, answer_write):
            os.close(descriptor)
        os.waitpid(helper, 0)


def _map(pid: int, user: int, group: int) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_WRONLY)
        os.write(descriptor, text.encode())
        os.close(descriptor)


def _mounts(tree: Tree) -> Iterator[tuple[str, str]]:
    """Yield what is mounted and from where, outer folders first; a folder within another one needs no mount of its own."""
    mounted: list[str] = []
    for path in sorted(tree.readable, key=len):
        if path.startswith(f"{_TMP}/"):
            raise OSError(f"{path} cannot be shown to graders, who have a {_TMP} of their own: install Python elsewhere")
        if not any(path.startswith(f"{outer}/") for outer in mounted):
            mounted.append(path)
            yield path, tree.readable[path]
    yield from zip(DEVICES, DEVICES, strict=True)


def _bind(path: str, descriptor: int) -> None:
    target = _BASE + path
    attributes = _READ_ONLY
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.makedirs(target, exist_ok=True)  # noqa: PTH103 - as above
        attributes |= kernel.MS_NODEV
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120 - as above
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
        attributes |= kernel.MS_NOEXEC
    kernel.mount(f"/proc/self/fd/{descriptor}", target, None, kernel.MS_BIND | kernel.MS_REC)
    kernel.restrict_mount(target, attributes, recursive=True)
    os.close(descriptor)


def _link_alike() -> None:
    """Make the links to system libraries that lie in the host's root (`/lib` to `usr/lib`)."""
    for name in ("lib", "lib64"):
        with suppress(FileExistsError, FileNotFoundError, OSError):
            os.symlink(os.readlink(f"/{name}"), f"{_BASE}/{name}")  # noqa: PTH115, PTH211 - as above
