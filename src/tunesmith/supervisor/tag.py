"""A living process is given its attempt's tag: the values in its own first environment, which `/proc` shows, are overwritten.

What a process sets later stands elsewhere in its memory and is seen by nobody else. So a spare is started with a tag of its
own that has room for any job's, and both it and its worker write over it before they touch a task.
"""

import ctypes
import hashlib
import os
from typing import Final

from tunesmith.supervisor import tree

#: What may name a job, and the digits of an attempt's number.
_LONGEST_JOB: Final = 64
_N_DIGITS: Final = 10


class NoTag(Exception):
    """The process cannot carry the tag; whatever it were to do must be done by another."""


def spare_name(folder: str) -> str:
    """Return what spares of the server on this data folder carry in a job's place: as long as the longest job's name."""
    return f"spare-{hashlib.sha256(folder.encode()).hexdigest()}"[:_LONGEST_JOB].ljust(_LONGEST_JOB, "-")


def spare_tag(folder: str) -> dict[str, str]:
    """Return the environment of a spare's tag."""
    return {tree.JOB_TAG: spare_name(folder), tree.ATTEMPT_TAG: "0" * _N_DIGITS}


def take_tag(job: str, attempt: int) -> None:
    """Make this process carry an attempt's tag, and every process that it starts from now on.

    Raises:
        NoTag: the names have no room in the environment that the process was started with, or `/proc` does not show them.
    """
    # the job last: whoever looks for it finds its attempt beside it
    for name, value in ((tree.ATTEMPT_TAG, str(attempt)), (tree.JOB_TAG, job)):
        if tree.LINUX:
            _overwrite(name, value)
        os.environ[name] = value
    if tree.LINUX and not tree.carries(os.getpid(), job, attempt):
        raise NoTag(f"/proc/{os.getpid()}/environ does not show {job}, attempt {attempt}")


def _overwrite(name: str, value: str) -> None:
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    address = libc.getenv(name.encode())
    if address is None:
        raise NoTag(f"{name} is not set")
    room = len(ctypes.string_at(address))
    if len(value.encode()) > room:
        raise NoTag(f"{value} is longer than the {room} bytes that {name} has")
    ctypes.memmove(address, value.encode().ljust(room, b"\0"), room)
