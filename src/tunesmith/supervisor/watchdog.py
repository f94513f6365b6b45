"""The attempt's pulse: tells the server every two seconds that it lives, and learns whether it still may."""

import os
import threading
from collections.abc import Callable
from typing import Final

from tunesmith.core.channel import FOLDER_REMOVED, LEASE_EXPIRED, REFUSED
from tunesmith.core.clock import Clock
from tunesmith.supervisor.channel import Channel, Refused, Unreachable

BEAT_S: Final = 2.0


class Watchdog(threading.Thread):
    """Beats until the process ends; a refused beat, or a silence longer than `silence_limit_s`, is the attempt's end.

    Without a limit a silent server is waited for: where no other server can start the job again, its work is worth keeping.
    It is not when the attempt's folder is gone, for then nobody can ever take it.
    """

    def __init__(
        self,
        channel: Channel,
        clock: Clock,
        *,
        folder: str,
        silence_limit_s: float | None,
        on_desired: Callable[[str], None],
        on_over: Callable[[str], None],
        beat_s: float = BEAT_S,
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._channel = channel
        self._clock = clock
        self._folder = folder
        self._silence_limit_s = silence_limit_s
        self._on_desired = on_desired
        self._on_over = on_over
        self._beat_s = beat_s
        self._ended = threading.Event()

    def run(self) -> None:
        """Beat until `end` is called or the attempt is over."""
        heard_at = self._clock.monotonic()
        while not self._ended.wait(self._beat_s):
            try:
                desired = self._channel.beat()
            except Refused:
                self._on_over(REFUSED)
                return
            except Unreachable:
                cause = self._hopeless(self._clock.monotonic() - heard_at)
                if cause is not None:
                    self._on_over(cause)
                    return
                continue
            heard_at = self._clock.monotonic()
            self._on_desired(desired)

    def _hopeless(self, silence_s: float) -> str | None:
        """Return why a silent server is waited for no more."""
        if self._silence_limit_s is not None and silence_s > self._silence_limit_s:
            return LEASE_EXPIRED
        return None if os.path.isdir(self._folder) else FOLDER_REMOVED  # noqa: PTH112 - as in tree.py

    def end(self) -> None:
        """Beat no more."""
        self._ended.set()
