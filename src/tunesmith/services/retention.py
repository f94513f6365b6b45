"""Retention: a thread that removes what has expired, and what was deleted and nobody needs any more."""

import threading
from collections.abc import Callable
from typing import Final

import structlog

from tunesmith.core.errors import ApiError

EVERY_S: Final = 60.0

log = structlog.get_logger()


class Retention:
    """Sweeps at its start, then every minute."""

    def __init__(self, *sweeps: Callable[[], int]) -> None:
        """Take what removes some and tells how many, zero when nothing is left."""
        self._sweeps = sweeps
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Begin to sweep."""
        self._thread.start()

    def stop(self, *, timeout_s: float = 5.0) -> None:
        """Stop sweeping."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._ending.is_set():
            for sweep in self._sweeps:
                try:
                    while sweep():
                        pass
                except (ApiError, OSError):  # a full disk or an absent database now is not one in a minute
                    log.exception("retention.sweep")
            self._ending.wait(EVERY_S)
