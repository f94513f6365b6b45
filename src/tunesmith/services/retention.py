"""Retention: a thread that removes deleted and expired files that no job needs, parts of ended uploads, expired answers."""

import threading
from typing import Final

import structlog

from tunesmith.core.errors import ApiError
from tunesmith.services.files import Files
from tunesmith.services.idempotency import Idempotency
from tunesmith.services.uploads import Uploads

EVERY_S: Final = 60.0

log = structlog.get_logger()


class Retention:
    """Sweeps at its start, then every minute."""

    def __init__(self, files: Files, uploads: Uploads, idempotency: Idempotency) -> None:
        self._sweeps = (files.sweep, uploads.sweep, idempotency.sweep)
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
