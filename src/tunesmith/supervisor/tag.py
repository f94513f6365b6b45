"""A living process is given its attempt's tag: in its first environment, which `/proc` shows, the values are overwritten.

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


def prove_tag() -> None:
    """Check that this process can be given another tag, by giving it one of the same length and taking it back.

    Raises:
        NoTag: it cannot.
    """
    name, number = os.environ[tree.JOB_TAG], os.environ[tree.ATTEMPT_TAG]
    _write(name[:-1] + "+", number)
    _write(name, number)


def take_tag(job: str, attempt: int) -> None:
    """Make this process carry an attempt's tag, and every process that it starts from now on; once in its life.

    Raises:
        NoTag: the names have no room in the environment that the process was started with, or `/proc` does not show them.
    """
    _write(job, str(attempt))
    # only now: what is set goes elsewhere, and the C library finds it there from then on
    os.environ.update({tree.JOB_TAG: job, tree.ATTEMPT_TAG: str(attempt)})


def _write(job: str, number: str) -> None:
    if not tree.LINUX:
        return
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    # the job last: whoever looks for it finds its attempt beside it
    for name, value in ((tree.ATTEMPT_TAG, number.encode()), (tree.JOB_TAG, job.encode())):
        address = libc.getenv(name.encode())
        room = len(ctypes.string_at(address)) if address else 0
        if len(value) > room:
            raise NoTag(f"{name} has {room} bytes, too few for {value.decode()}")
        ctypes.memmove(address, value.ljust(room, b"\0"), room)
    if not tree.carries(os.getpid(), job, int(number)):
        raise NoTag(f"/proc/{os.getpid()}/environ does not show {job}, attempt {number}")
