"""A further process of a training that several share: it ends with the worker that started it, and says nothing itself."""

import os
import sys
import time
from typing import Any, Final

from tunesmith.supervisor.tree import die_with_parent

#: The worker that a further process belongs to.
PARENT: Final = "TUNESMITH_RANK_PARENT"
#: What the first process has to say why it fails before it is ended.
_FIRST_WORD_S: Final = 10.0


def is_further() -> bool:
    """Say whether this process is one of those that a worker started beside itself, and let it end with that one."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return False
    die_with_parent(int(parent))
    return True


class Silent:
    """The reporter and the control of a further process: the first one speaks and listens for all."""

    def started(self, *, total_steps: int, step: int) -> None:
        """Say nothing."""

    def metrics(self, step: int, total_steps: int, values: dict[str, Any]) -> None:
        """Say nothing."""

    def message(self, text: str, *, level: str = "info", key: str | None = None) -> None:
        """Say nothing."""

    def checkpoint(self, step: int, key: str, sha256: str, metrics: dict[str, Any]) -> None:
        """Say nothing."""

    def validated(self, data: dict[str, Any]) -> None:
        """Say nothing."""

    def finished(self, data: dict[str, Any]) -> None:
        """Say nothing."""

    def paused(self, step: int, key: str, sha256: str, metrics: dict[str, Any]) -> None:
        """Say nothing."""

    def failed(self, code: str, param: str | None, message: str) -> None:
        """Leave it to the first process, which fails with the same words; if it does not, end it by an end of our own."""
        print(f"failed: {code}, {param}: {message}", file=sys.stderr, flush=True)  # noqa: T201 - the worker's log is its stderr
        time.sleep(_FIRST_WORD_S)
        os._exit(1)

    @property
    def ended(self) -> bool:
        """Whether the task's end was reported: that is not for this process to do."""
        return True

    def pause_asked(self) -> bool:
        """Return what is never asked here."""
        return False
