"""The local executor's spares: a thread keeps so many of each kind, made one at a time and away from everybody's start.

A spare is used once. The next is made some seconds after the last start of an attempt: by then that one is at work.
"""

import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from tunesmith.core.clock import Clock
from tunesmith.core.environment import passed_on
from tunesmith.core.machine import readable_bytes
from tunesmith.domain.ports import Spare
from tunesmith.executors.spare import LocalSpare, readable
from tunesmith.supervisor import tag, tree

log = structlog.get_logger()

#: Rest after a start, the server's own among them, and after a spare's death: doubled with every further one that was not
#: ready, up to the longest.
REST_S: Final = 2.0
LONGEST_REST_S: Final = 60.0


class LocalSpares:
    """Spares of the server on `folder`; `wanted` is how many of each kind, in the order in which they are made."""

    def __init__(
        self,
        folder: Path,
        *,
        wanted: Mapping[str, int],
        max_bytes: int,
        threads: int,
        clock: Clock,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._name = str(folder)
        self._wanted = dict(wanted)
        self._max_bytes = max_bytes
        self._threads = threads
        self._clock = clock
        self._python = python
        self._environment = dict(environment if environment is not None else {})
        self._lock = threading.Lock()
        self._spares: list[LocalSpare] = []
        self._n_failures = 0
        self._due = 0.0
        self._ending = False
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="spares", daemon=True)

    def start(self) -> None:
        """End the spares that a killed server may have left, and begin to make our own."""
        tree.sweep(tag.spare_name(self._name))
        self._due = self._clock.monotonic() + REST_S
        if any(self._wanted.values()):
            self._thread.start()

    def close(self) -> None:
        """End every spare; no more are made or taken."""
        with self._lock:
            if self._ending:
                return
            self._ending = True
            os.write(self._wake_write, b"\0")
        if self._thread.ident is not None:
            self._thread.join()
        for spare in self._spares:
            spare.end()
        self._spares.clear()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def list(self) -> list[Spare]:
        """Return the spares there are now."""
        with self._lock:
            spares = list(self._spares)
        return [Spare(spare.kind, spare.pid, spare.ready, spare.memory_bytes) for spare in spares]

    def take(self, kind: str) -> LocalSpare | None:
        """Return a spare of a kind, a ready one before one that still imports; from here on it is the caller's."""
        with self._lock:
            self._due = self._clock.monotonic() + REST_S
            found = [spare for spare in self._spares if spare.kind == kind and not self._ending]
            if not found:
                return None
            spare = max(found, key=lambda spare: spare.ready)
            self._spares.remove(spare)
            os.write(self._wake_write, b"\0")
        return spare

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._ending:
                    return
                watched = {spare.answers: spare for spare in self._spares}
                kind = self._missing()
                rest_s = None if kind is None else max(0.0, self._due - self._clock.monotonic())
            if kind is not None and rest_s == 0.0:
                self._make(kind)
                continue
            said = readable([self._wake_read, *watched], rest_s)
            if self._wake_read in said:
                os.read(self._wake_read, 4096)
            for descriptor in said & watched.keys():
                self._listen(watched[descriptor])

    def _missing(self) -> str | None:
        """Return the kind that is to be made next; None while one is being made, and when there are enough."""
        if any(not spare.ready for spare in self._spares):
            return None
        kinds = [spare.kind for spare in self._spares]
        return next((kind for kind, number in self._wanted.items() if kinds.count(kind) < number), None)

    def _make(self, kind: str) -> None:
        environment = {**passed_on(), **self._environment, **tag.spare_tag(self._name)}
        try:
            spare = LocalSpare(kind, python=self._python, threads=self._threads, environment=environment)
        except OSError as error:
            self._failed(kind, str(error))
            return
        with self._lock:
            self._spares.append(spare)

    def _listen(self, spare: LocalSpare) -> None:
        """Hear what a spare says, unless somebody has taken it meanwhile."""
        with self._lock:
            if spare not in self._spares:
                return
            was_ready = spare.ready
            lives = spare.listen()
            if not lives:
                self._spares.remove(spare)
            kept = [other for other in self._spares if other.ready]
            held = sum(other.memory_bytes for other in kept)
            too_much = lives and held > self._max_bytes
            if too_much:
                self._spares.remove(spare)
                self._wanted[spare.kind] -= 1
        if not lives or too_much:
            spare.end()
        if not lives:
            self._failed(spare.kind, "its process ended (the lines above tell why)" if not was_ready else "it was killed")
        elif too_much:
            log.warning(
                "spare.too_large",
                kind=spare.kind, held=readable_bytes(held), warm_spares_max_bytes=readable_bytes(self._max_bytes),
            )  # fmt: skip
        else:
            self._n_failures = 0
            log.info("spare.ready", kind=spare.kind, pid=spare.pid, held=readable_bytes(held))

    def _failed(self, kind: str, reason: str) -> None:
        rest_s = min(LONGEST_REST_S, REST_S * 2**self._n_failures)
        self._n_failures += 1
        with self._lock:
            self._due = self._clock.monotonic() + rest_s
        log.warning("spare.lost", kind=kind, reason=reason, next_in_s=rest_s)
