"""The leak oracle: what a test leaves behind of processes, descriptors and temporary files.

A watched test has a TMPDIR of its own. Every process that it starts inherits that, whoever its parent is, so what is left of
them is found and told apart from other people's.
"""

import gc
import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tunesmith.supervisor import tree

#: Threads and sockets that are closing, and processes that are dying, get this long.
PATIENCE_S: Final = 5.0
#: What a library opens once and keeps: random numbers, the null device, torch's and the test runner's own.
OPENED_ONCE: Final = re.compile(r"/dev/(null|u?random|shm/.*)|.*/coverage.*|anon_inode:\[(eventpoll|eventfd)\]")
#: Caches that outlive their maker on purpose, and the sockets' folder of a data folder whose own path is too long for one.
KEPT: Final = re.compile(rf"torchinductor_.*|tunesmith-{os.getuid()}-[0-9a-f]{{12}}|pytest-of-.*")
PARTS: Final = (".part", ".unfinished")

Processes = Callable[[str], bool]


def tagged(environment: str) -> bool:
    """Say whether a process is of an attempt, by its environment."""
    return f"{tree.JOB_TAG}=" in environment


def any_process(environment: str) -> bool:
    """Take every process that the test started."""
    return True


class Watch:
    """What was there before a test; `leaks` tells what is there more."""

    def __init__(self, temporary: Path, data: Path, processes: Processes, *, served: bool) -> None:
        self.temporary = temporary
        self.data = data
        self._processes = processes
        self._served = served
        self._before = descriptors()

    def leaks(self) -> list[str]:
        """Return what is left over, in words; what nothing but a circle still holds is not."""
        if found := self._found():
            gc.collect()  # takes most of a second in a long session: only where that can change something
            found = self._found()
        return found

    def _found(self) -> list[str]:
        found = [f"process {pid}: {words}" for pid, words in self.processes().items()]
        more = Counter[str]() if self._served else descriptors() - self._before
        found += [f"descriptor: {n} of {what}" for what, n in more.items()]
        found += [f"temporary: {path}" for path in self._temporary()]
        return found + [f"unfinished: {path}" for path in self._unfinished()]

    def settled_leaks(self) -> list[str]:
        """Return what is still left over after a little patience."""
        end = time.monotonic() + PATIENCE_S
        while (left := self.leaks()) and time.monotonic() < end:
            time.sleep(0.05)
        return left

    def processes(self) -> dict[int, str]:
        """Return the command line of every living process that this test started, by number."""
        ours = f"\0TMPDIR={self.temporary}\0"
        found: dict[int, str] = {}
        for pid in (int(name.name) for name in Path("/proc").iterdir() if name.name.isdigit()):
            with suppress(OSError):
                environment = f"\0{Path(f'/proc/{pid}/environ').read_text(errors='replace')}"
                if pid != os.getpid() and ours in environment and self._processes(environment) and tree.start_time(pid):
                    found[pid] = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
        return found

    def _temporary(self) -> list[Path]:
        return [path for path in self.temporary.iterdir() if not KEPT.fullmatch(path.name)]

    def _unfinished(self) -> list[Path]:
        left = [path for path in self.data.rglob("*") if path.suffix in PARTS]
        return [path for path in left if not _killed_while_writing(path)]


def _killed_while_writing(part: Path) -> bool:
    """Say whether a part file is of an attempt that did not end by itself: such a one can leave what it was writing."""
    owner = re.search(r"^(.*)/(?:blobs/jobs/([^/]+)/attempts|attempts/([^/]+))/(\d+)/", str(part))
    if owner is None:
        return False
    ended = Path(owner[1]) / "attempts" / (owner[2] or owner[3]) / owner[4] / "exit.json"
    return not ended.exists() or json.loads(ended.read_text())["exit_code"] is None


def descriptors() -> Counter[str]:
    """Count this process's open descriptors by what they are."""
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a Path would be opened on the way
        with suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - as above
            if not target.startswith("/proc/") and not OPENED_ONCE.fullmatch(target):
                found[re.sub(r"\d+", "N", target) if target.startswith(("socket:", "pipe:")) else target] += 1
    return found


@contextmanager
def watched(data: Path, processes: Processes = any_process, *, served: bool = False) -> Iterator[Watch]:
    """Fail if what runs in the block leaves anything behind; that is removed, so that the next test starts clean.

    Where this very process serves for longer than a test (`served`), connections stay open and descriptors don't count.
    """
    temporary = Path(tempfile.mkdtemp(prefix="ts-"))
    temporary.chmod(0o755)  # a PostgreSQL of the test's runs as another user
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        patch.setattr(tempfile, "tempdir", None)
        watch = Watch(temporary, data, processes, served=served)
        try:
            yield watch
            left = watch.settled_leaks()
        finally:
            for pid in watch.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(temporary, ignore_errors=True)
    if left:
        pytest.fail("the test leaves behind:\n" + "\n".join(left))
