"""What an attack may want: secrets, ports, sockets, a victim, all real; and what is seen of them from outside."""

import os
import platform
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from tunesmith.graders.sandbox import process

PREFIX = "a-secret-of-the-server-"
VARIABLE = "TUNESMITH_TEST_PLANTED"
GRADERS_USER = process.USER
#: Calls that have no name in Python, by their numbers.
CALLS = {
    "x86_64": {
        "kill": 62, "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129, "process_vm_readv": 310, "pidfd_open": 434,
        "pidfd_getfd": 438, "clone": 56, "clone3": 435, "memfd_secret": 447, "execveat": 322, "io_uring_setup": 425,
        "bpf": 321, "keyctl": 250, "add_key": 248, "setns": 308, "perf_event_open": 298, "fsopen": 430, "open_tree": 428,
        "userfaultfd": 323, "inotify_init1": 294, "getpid": 39,
    },
    "aarch64": {
        "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "process_vm_readv": 270, "pidfd_open": 434,
        "pidfd_getfd": 438, "clone": 220, "clone3": 435, "memfd_secret": 447, "execveat": 281, "io_uring_setup": 425,
        "bpf": 280, "keyctl": 219, "add_key": 217, "setns": 268, "perf_event_open": 241, "fsopen": 430, "open_tree": 428,
        "userfaultfd": 282, "inotify_init1": 26, "getpid": 172,
    },
}[platform.machine()]  # fmt: skip


class World:
    """Planted things, in a folder that every user may look into; `close` takes all away."""

    def __init__(self) -> None:
        self.secret = PREFIX + secrets.token_hex(8)
        os.environ[VARIABLE] = self.secret
        self.folder = Path(tempfile.mkdtemp(prefix="tsbx-", dir="/var/tmp"))
        self.folder.chmod(0o777)
        self.file, self.writable = self.folder / "secret.txt", self.folder / "writable.txt"
        for path in (self.file, self.writable):
            path.write_text(self.secret)
            path.chmod(0o666)
        if os.geteuid() == 0:  # an unprivileged server's files are of the user that its graders run as
            os.chown(self.writable, GRADERS_USER, GRADERS_USER)
        with closing(sqlite3.connect(self.folder / "server.db")) as database:
            database.execute("create table secrets (value text)")
            database.execute("insert into secrets values (?)", (self.secret,))
            database.commit()
        (self.folder / "server.db").chmod(0o666)
        self.abstract = f"tunesmith-test-{secrets.token_hex(4)}"
        self.tcp, self.unix, self.hidden = (self._listener(*where) for where in (
            (socket.AF_INET, ("127.0.0.1", 0)),
            (socket.AF_UNIX, str(self.folder / "s")),
            (socket.AF_UNIX, "\0" + self.abstract),
        ))  # fmt: skip
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.dgram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.dgram.bind(str(self.folder / "d"))
        for name in ("s", "d"):
            (self.folder / name).chmod(0o777)
        self.sockets = (self.tcp, self.unix, self.hidden, self.udp, self.dgram)
        for one in self.sockets:
            one.setblocking(False)
        # of the graders' own user, whom the kernel alone would let signal it
        user = {"user": GRADERS_USER, "group": GRADERS_USER, "extra_groups": []} if os.geteuid() == 0 else {}
        self.victim = subprocess.Popen(["/bin/sleep", "3600"], **user)  # type: ignore[call-overload]
        self.before = self._shared()

    def item(self, zygote: int) -> dict[str, Any]:
        """Return what an attack is told."""
        return {
            "prefix": PREFIX,
            "variable": VARIABLE,
            "folder": str(self.folder),
            "file": str(self.file),
            "writable": str(self.writable),
            "database": str(self.folder / "server.db"),
            "port": self.tcp.getsockname()[1],
            "udp": self.udp.getsockname()[1],
            "unix": str(self.folder / "s"),
            "dgram": str(self.folder / "d"),
            "abstract": self.abstract,
            "server": os.getpid(),
            "victim": self.victim.pid,
            "zygote": zygote,
            "packages": sorted({sysconfig.get_path("purelib"), f"{sys.base_prefix}/lib/python3/dist-packages",
                                f"{sys.base_prefix}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"}),
            "calls": CALLS,
        }  # fmt: skip

    def harm(self) -> list[str]:
        """Return what is not as it was planted, in words."""
        found: list[str] = []
        for path in (self.file, self.writable):
            if (
                not path.exists()
                or path.read_text() != self.secret
                or path.stat().st_mode & 0o777 != 0o666
                or path.stat().st_mtime < 2
            ):
                found.append(f"{path.name} was changed")
        names = {"secret.txt", "writable.txt", "server.db", "s", "d"}
        found += [f"{path} was made" for path in self.folder.iterdir() if path.name not in names]
        for one in self.sockets:
            with suppress(BlockingIOError):
                if one in (self.tcp, self.unix, self.hidden):
                    one.accept()[0].close()
                else:
                    one.recv(100)
                found.append(f"somebody came to {one}")
        state = Path(f"/proc/{self.victim.pid}/stat").read_text().rpartition(")")[2].split()[0]
        if self.victim.poll() is not None or state not in "SR":
            found.append(f"the victim is {state}")
        found += [f"{entry} is new" for entry in self._shared() - self.before]
        found += [f"{path} was made" for path in Path("/").glob("*/made-by-a*")]
        return found

    def close(self) -> None:
        os.environ.pop(VARIABLE)
        self.victim.send_signal(signal.SIGKILL)
        self.victim.wait()
        for one in self.sockets:
            one.close()
        shutil.rmtree(self.folder)

    def _listener(self, family: int, address: Any) -> socket.socket:
        one = socket.socket(family)
        one.bind(address)
        one.listen()
        return one

    @staticmethod
    def _shared() -> set[str]:
        """Return what lies in shared memory of names that attacks use."""
        found = {path.name for path in Path("/dev/shm").glob("*tunesmith*")}
        for table in ("shm", "msg", "sem"):
            for line in Path(f"/proc/sysvipc/{table}").read_text().splitlines()[1:]:
                if line.split()[0] in ("4711", "4712"):
                    found.add(f"{table} {line}")
        return found


def descendants(root: int) -> dict[int, int]:
    """Return the processes below one (and itself), with the memory of their own that each holds in bytes."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    held: dict[int, int] = {}
    for pid in found:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            held[pid] = 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))
    return held


class Watch(threading.Thread):
    """Looks at a tree of processes while a call runs: the most memory and the most processes that it had."""

    def __init__(self, roots: list[int]) -> None:
        super().__init__(daemon=True)
        self.n_bytes = 0
        self.n_processes = 0
        self._roots = roots
        self._over = threading.Event()

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(0.05):
            held = [one for root in self._roots for one in descendants(root).values()]
            self.n_bytes = max(self.n_bytes, sum(held))
            self.n_processes = max(self.n_processes, len(held))


def settled(roots: list[int], n_expected: int, patience_s: float = 2.0) -> int:
    """Return how many processes there are below the roots, once that is what is expected or patience is over."""
    end = time.monotonic() + patience_s
    while True:
        n_found = sum(len(descendants(root)) for root in roots)
        if n_found == n_expected or time.monotonic() > end:
            return n_found
        time.sleep(0.02)
