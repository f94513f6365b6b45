"""Landlock: what a process may open, whatever its user may; a wall of its own behind the namespaces, or in their place."""

import os
import stat
from collections.abc import Iterable, Sequence
from typing import Final

from tunesmith.graders.sandbox import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH: Final = 1
_VERSION: Final = 1

_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_MAKE_CHAR: Final = 1 << 6
_MAKE_SOCK: Final = 1 << 9
_MAKE_BLOCK: Final = 1 << 11
_TRUNCATE: Final = 1 << 14
_IOCTL_DEV: Final = 1 << 15
_EXECUTE: Final = 1 << 0
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

READ: Final = _READ_FILE | _READ_DIR
LIST: Final = _READ_DIR
DEVICE: Final = _READ_FILE | _WRITE_FILE
#: Everything in a scratch folder except to run what is in it, and nodes that are no files.
SCRATCH: Final = ((1 << 15) - 1) & ~(_EXECUTE | _MAKE_CHAR | _MAKE_BLOCK | _MAKE_SOCK)

#: How many kinds of access to files each version of the interface knows; from the fourth on it knows TCP, from the sixth on
#: abstract sockets and signals.
_N_ACCESSES: Final = {1: 13, 2: 14, 3: 15, 4: 15}
_N_NEWEST: Final = 16


def version() -> int:
    """Return the version of this kernel's Landlock; 0 where there is none."""
    return max(0, kernel.syscall(_CREATE_RULESET, None, 0, _VERSION))


class Rules:
    """What may be opened; nothing else may, nor any TCP port, nor sockets and processes outside (as the kernel can)."""

    def __init__(self) -> None:
        known = version()
        if not known:
            raise OSError("this kernel has no Landlock")
        self._accesses = (1 << _N_ACCESSES.get(known, _N_NEWEST)) - 1
        words = [self._accesses]
        if known >= 4:
            words.append(3)
        if known >= 6:
            words.append(3)
        attributes = b"".join(word.to_bytes(8, "little") for word in words)
        answer = kernel.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
        self._descriptor = kernel.checked(answer, "landlock_create_ruleset")

    def allow(self, path: str, accesses: int) -> None:
        """Allow accesses to a file or to everything beneath a folder; a path that is not there is passed over."""
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            if not stat.S_ISDIR(os.fstat(place).st_mode):
                accesses &= _OF_FILES
            rule = (accesses & self._accesses).to_bytes(8, "little") + place.to_bytes(4, "little", signed=True)
            answer = kernel.syscall(_ADD_RULE, self._descriptor, _RULE_PATH_BENEATH, rule, 0)
            kernel.checked(answer, f"landlock_add_rule {path}")
        finally:
            os.close(place)

    def allow_reading(self, folders: Iterable[str], masked: Sequence[str]) -> None:
        """Allow to read everything beneath folders except what lies beneath a masked one."""
        for folder in folders:
            inner = [mask for mask in masked if mask.startswith(f"{folder}/")]
            if not inner:
                self.allow(folder, READ)
                continue
            self.allow(folder, LIST)
            with os.scandir(folder) as entries:
                rest = [entry.path for entry in entries if entry.path not in inner]
            self.allow_reading(rest, inner)

    def move(self, descriptor: int) -> None:
        """Hold the rules by another descriptor; what it was is closed."""
        os.dup2(self._descriptor, descriptor)
        os.close(self._descriptor)
        self._descriptor = descriptor

    def restrict(self) -> None:
        """Put this thread, and what it starts, under the rules for good; needs `no_new_privs`. They cannot be used again."""
        kernel.checked(kernel.syscall(_RESTRICT_SELF, self._descriptor, 0), "landlock_restrict_self")
        os.close(self._descriptor)
