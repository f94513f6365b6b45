"""The audit log of requests: noted at once, written a moment later by many in one commit, so that no change waits for it.

What the server changes by itself is written by `store.audit.tell`, in the commit of the change.
"""

import threading
from typing import Final, Literal

import structlog

from tunesmith.core.errors import ApiError
from tunesmith.core.failpoint import failpoint
from tunesmith.domain.audit import Entry
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.store import audit
from tunesmith.store.session import Database

#: How long an entry waits for others; a server that is killed loses no older ones.
BATCH_S: Final = 0.05
#: How long a writer that was refused by the database waits, and how much it then holds in memory.
RETRY_S: Final = 1.0
N_HELD: Final = 10_000
#: How many entries are one statement.
N_AT_ONCE: Final = 500
_EVERYWHERE: Final = Everywhere("the log is of all projects; only admins read it")

log = structlog.get_logger()


class Audit:
    """Who changed what."""

    def __init__(self, *, db: Database) -> None:
        self._db = db
        self._noted: list[Entry] = []
        self._changed = threading.Condition()
        #: One at a time writes, so that what is written is in order.
        self._writing = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, entry: Entry) -> None:
        """Take an entry, which is written within a moment; returns at once."""
        with self._changed:
            self._noted.append(entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
                self._thread.start()
            self._changed.notify()

    def page(
        self,
        *,
        project_id: str | None = None,
        key_id: str | None = None,
        since: float | None = None,
        until: float | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> tuple[list[Entry], bool]:
        """Return entries by time, all that were noted before among them, and whether there are more.

        Raises:
            InvalidRequest: `after` names none of them.
        """
        try:
            self._write()
        except ApiError:  # what is on the disk can be read although nothing can be written
            log.exception("audit.write", n_held=len(self._noted))
        scope = _EVERYWHERE if project_id is None else Project(project_id)
        with self._db.read() as tx:
            return audit.page(tx, scope, key_id=key_id, since=since, until=until, after=after, limit=limit, order=order)

    def stop(self, *, timeout_s: float = 5.0) -> None:
        """Write what was noted."""
        self._ending.set()
        with self._changed:
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._noted or self._ending.is_set())
            self._ending.wait(BATCH_S)
            try:
                self._write()
            except ApiError:  # a full disk or an absent database now is not one in a second
                log.exception("audit.write", n_held=len(self._noted))
                if self._ending.wait(RETRY_S):
                    return
            if self._ending.is_set() and not self._noted:
                return

    def _write(self) -> None:
        with self._writing:
            while entries := self._noted[:N_AT_ONCE]:
                try:
                    with self._db.begin() as tx:
                        audit.add(tx, _EVERYWHERE, entries)
                        failpoint("audit.write")
                except ApiError:
                    with self._changed:
                        del self._noted[:-N_HELD]
                    raise
                with self._changed:
                    del self._noted[: len(entries)]
