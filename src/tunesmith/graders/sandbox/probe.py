"""Which sandbox this host can give, found by running graders in it: one that must work, and others that must not.

Nothing is looked up by name or version: a layer that the kernel has, but that does not hold here, is one that is missing.
"""

import os
import platform
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

from tunesmith.graders.base import GradingFailed
from tunesmith.graders.sandbox.verdict import SetUpFailed

#: `full`: namespaces, Landlock where the kernel has it, filtered system calls. `reduced`: no namespaces (Docker's default
#: profile), so no scratch files either. `none`: no stranger's code runs here.
Level = Literal["full", "reduced", "none"]
LEVELS: Final[tuple[Level, ...]] = ("full", "reduced", "none")


@dataclass(frozen=True, slots=True)
class Found:
    """The level that this host gives, and for every higher one why not."""

    level: Level
    reasons: tuple[str, ...] = ()

    @property
    def way_out(self) -> str:
        """Say why no grader runs here, and what to do about it."""
        return (
            "python graders need a sandbox, and this host gives none: " + "; ".join(self.reasons) + ". It takes Linux on "
            "x86_64 or aarch64 with seccomp, and unprivileged user namespaces or Landlock (kernel 5.13 or newer). In a "
            "container, allow one of them: with Docker `--security-opt seccomp=unconfined`, or a profile that permits "
            "Landlock. Other graders work without."
        )


#: Runs a grader at a level: its source and item in, its score out.
Run = Callable[[str, dict[str, object]], Awaitable[float]]

_BENIGN: Final = """
import json, math, re
def grade(sample, item):
    return math.sqrt(json.loads('{"a": 16}')["a"]) + len(re.findall("a", sample["output_text"])) + item["number"]
"""
_LIBC: Final = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def works(number, *words):
    return libc.syscall(ctypes.c_long(number), *(ctypes.c_long(word) for word in words)) >= 0
"""
#: Each returns 1 when it got what it must not have, and raises or returns 0 when not.
MUST_FAIL: Final[dict[str, str]] = {
    "reads a file of the host's": "def grade(s, i):\n    return len(open(i['file']).read()) > 0",
    # in the scratch folder of its own it may write a file of the same name: whether the host's is written is seen outside
    "writes a file of the host's": "def grade(s, i):\n    open(i['file'], 'a').write('x')\n    return 0",
    "lists the host's processes": "import os\ndef grade(s, i):\n    return len(os.listdir('/proc')) > 0",
    "signals the server": "import os\ndef grade(s, i):\n    os.kill(i['server'], 0)\n    return 1",
    "makes a process": "import os\ndef grade(s, i):\n    if os.fork() == 0: os._exit(0)\n    return 1",
    "runs a program": "import os\ndef grade(s, i):\n    os.execv(i['program'], [i['program'], '-c', ''])\n    return 1",
    "connects to a port": (
        "import socket\ndef grade(s, i):\n    socket.create_connection(('127.0.0.1', i['port']), 2)\n    return 1"
    ),
    "opens a socket of the hypervisor's": "import socket\ndef grade(s, i):\n    socket.socket(40, 1)\n    return 1",
    "opens a unix socket": "import socket\ndef grade(s, i):\n    socket.socket(socket.AF_UNIX)\n    return 1",
    "makes a user namespace": _LIBC + "def grade(s, i):\n    return libc.unshare(0x10000000) == 0",
    "mounts": _LIBC + "def grade(s, i):\n    return libc.mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0",
    "traces": _LIBC + "def grade(s, i):\n    return libc.ptrace(0, 0, 0, 0) == 0",
    "opens an io_uring": _LIBC + "def grade(s, i):\n    return works(425, 1, id(bytes(256)) + 32)",
    "opens a key ring": _LIBC + "def grade(s, i):\n    return works({'x86_64': 250}.get(i['machine'], 219), 0, -2, 1)",
    "makes a file in memory": "import os\ndef grade(s, i):\n    return os.memfd_create('x') >= 0",
    "takes 8 GB of memory": "def grade(s, i):\n    return len(bytearray(8 << 30)) > 0",
    "leaves a variable": "import builtins\ndef grade(s, i):\n    builtins.left = 1\n    return 0",
    "finds what a call before it left": "import builtins\ndef grade(s, i):\n    return builtins.left",
}


async def holds(run: Run) -> str | None:
    """Return None when graders work in a sandbox and no probe gets out of it; else what is wrong.

    Raises:
        GradingFailed, Lost, OSError: there was no answer; another time there may be one.
    """
    if sys.platform != "linux":
        return f"{platform.system()} has no sandbox of this kind"
    with socket.socket() as server, tempfile.NamedTemporaryFile() as file:
        server.bind(("127.0.0.1", 0))
        server.listen()
        file.write(b"a secret of the server's")
        file.flush()
        os.chmod(file.name, 0o666)  # noqa: PTH101 - what every user may read and write is the sandbox's alone to keep
        item: dict[str, object] = {
            "number": 1,
            "file": file.name,
            "port": server.getsockname()[1],
            "server": os.getpid(),
            "program": "/bin/sh",
            "machine": platform.machine(),
        }
        try:
            if await run(_BENIGN, item) != 5:
                return "a plain grader gives a wrong score"
            for name, source in MUST_FAIL.items():
                if await _works(run, source, item):
                    return f"a grader {name}"
            if os.fstat(file.fileno()).st_size != len(b"a secret of the server's"):
                return "a grader writes a file of the host's"
        except SetUpFailed as error:
            return str(error) or type(error).__name__
    return None


async def _works(run: Run, source: str, item: dict[str, object]) -> bool:
    try:
        return await run(source, item) != 0
    except GradingFailed:
        return False
