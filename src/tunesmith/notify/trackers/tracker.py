"""What a tracker is to the process of its run: a module with `begin(run, place)`, which returns this."""

from dataclasses import dataclass
from typing import Protocol

from tunesmith.domain.recording import End, Row


@dataclass(frozen=True, slots=True)
class Place:
    """Where this server keeps or sends runs: a folder, or the address of a server."""

    folder: str | None = None
    url: str | None = None
    offline: bool = False


class Tracker(Protocol):
    """A run that has begun. Whatever a call raises is told as it is."""

    #: The last step that it has; -1 when it has none.
    last_step: int
    url: str | None

    def tell(self, row: Row) -> None:
        """Take the metrics of a step."""
        ...

    def rest(self) -> None:
        """Take note of a pause, and close."""
        ...

    def end(self, end: End) -> None:
        """Take note of the job's end, and close; what was taken is where it belongs when this returns."""
        ...
