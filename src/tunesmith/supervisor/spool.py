"""The attempt's report file: every report is on disk before it is sent, and what was not sent can be read later."""

import contextlib
import json
import os
import threading
from collections.abc import Callable
from typing import Final

from tunesmith.core.channel import CHECKPOINT, EXITED, FAILED, FINISHED, PAUSED, REFUSED, VALIDATED, Report
from tunesmith.core.clock import Clock
from tunesmith.core.failpoint import failpoint
from tunesmith.supervisor.channel import Away, Channel, Refused, Unreachable

BATCH: Final = 64
WINDOW_S: Final = 0.05
#: Longest wait before the next try: at a server that answers with errors, and where nobody listens (cheap to ask).
LONGEST_WAIT_S: Final = 2.0
LONGEST_AWAY_S: Final = 0.2
#: Reports that are on disk (fsync) before anything else happens, and that wait for no batch.
URGENT: Final = frozenset({VALIDATED, CHECKPOINT, PAUSED, FINISHED, FAILED, EXITED})


class Spool:
    """An append-only file of reports, one JSON object a line, and beside it how many bytes the server has taken."""

    def __init__(self, folder: str) -> None:
        self._file = os.open(f"{folder}/spool.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._mark = os.open(f"{folder}/spool.sent", os.O_WRONLY | os.O_CREAT, 0o600)
        self._changed = threading.Condition()
        self._written = os.fstat(self._file).st_size
        self._sent = 0
        self._urgent = False

    def append(self, lines: list[bytes]) -> None:
        """Write whole lines (without their newline), durably when one of them is urgent."""
        text = b"".join(line + b"\n" for line in lines)
        urgent = any(is_urgent(line) for line in lines)
        failpoint("spool.append")
        view = memoryview(text)
        while view:
            view = view[os.write(self._file, view) :]
        if urgent:
            os.fsync(self._file)
        with self._changed:
            self._written += len(text)
            self._urgent = self._urgent or urgent
            self._changed.notify_all()

    def wait(self, timeout_s: float, *, for_urgent: bool = False) -> None:
        """Wait until something is unsent (something urgent, with `for_urgent`), at most `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._urgent if for_urgent else self._written > self._sent, timeout_s)

    def batch(self) -> tuple[list[bytes], int]:
        """Return the next unsent lines, at most `BATCH`, and the mark that says they were sent."""
        with self._changed:
            start, end, self._urgent = self._sent, self._written, False
        lines: list[bytes] = []
        rest = b""
        position = start
        while position < end and len(lines) < BATCH:
            block = os.pread(self._file, min(1 << 16, end - position), position)
            position += len(block)
            *whole, rest = (rest + block).split(b"\n")
            lines += whole
        lines = lines[:BATCH]
        return lines, start + sum(len(line) + 1 for line in lines)

    def taken(self, mark: int) -> None:
        """Note that the server has everything before `mark`."""
        with self._changed:
            self._sent = mark
            self._changed.notify_all()
        os.pwrite(self._mark, b"%020d" % mark, 0)

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything is sent; False when `timeout_s` passed first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._sent >= self._written, timeout_s)


def is_urgent(line: bytes) -> bool:
    """Say whether a report waits for no batch, by a look at its kind."""
    try:
        return json.loads(line).get("kind") in URGENT
    except (ValueError, AttributeError):
        return False


def unsent(folder: str) -> list[Report]:
    """Return the reports in an ended attempt's spool that the server has not taken; a torn last line does not count."""
    sent = 0
    with contextlib.suppress(OSError, ValueError), open(f"{folder}/spool.sent", "rb") as mark:  # noqa: PTH123 - as in tree.py
        sent = int(mark.read() or b"0")
    try:
        with open(f"{folder}/spool.jsonl", "rb") as file:  # noqa: PTH123 - as above
            file.seek(sent)
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    reports: list[Report] = []
    for line in lines:
        with contextlib.suppress(ValueError):
            reports.append(Report.from_mapping(json.loads(line)))
    return reports


class Forwarder(threading.Thread):
    """Sends the spool to the server in batches, with patience while it is away."""

    def __init__(
        self,
        spool: Spool,
        channel: Channel,
        clock: Clock,
        *,
        on_desired: Callable[[str], None],
        on_over: Callable[[str], None],
    ) -> None:
        super().__init__(name="forwarder", daemon=True)
        self._spool = spool
        self._channel = channel
        self._clock = clock
        self._on_desired = on_desired
        self._on_over = on_over

    def run(self) -> None:
        """Forward until the process ends or the server refuses."""
        window_s = WINDOW_S
        failures = 0
        full = False
        while True:
            self._spool.wait(3600.0)
            if not full:
                self._spool.wait(window_s, for_urgent=True)
            lines, mark = self._spool.batch()
            if not lines:
                continue
            began = self._clock.monotonic()
            try:
                desired = self._channel.send(lines)
            except Unreachable as error:
                failures += 1
                longest_s = LONGEST_AWAY_S if isinstance(error, Away) else LONGEST_WAIT_S
                self._spool.wait(min(longest_s, WINDOW_S * 2**failures), for_urgent=True)
                continue
            except Refused:
                self._on_over(REFUSED)
                return
            failures = 0
            full = len(lines) == BATCH
            # a server that is slow to answer is asked less often: many attempts together must not drown it
            window_s = min(1.0, max(WINDOW_S, 4 * (self._clock.monotonic() - began)))
            self._spool.taken(mark)
            self._on_desired(desired)
