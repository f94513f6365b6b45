"""What a project may have and ask for at once, and the bucket that a rate is measured by; None is no limit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Quotas:
    """What a project may have."""

    #: Trainings at the same time.
    training_slots: int | None = None
    #: Jobs that wait, for their validation or for their training.
    queued_jobs: int | None = None
    files: int | None = None
    #: Of all files together.
    file_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """What a project may ask of one base model in a minute."""

    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ProjectLimits:
    """A project's own limits, where they are not the server's defaults."""

    project_id: str
    #: By the names of `Quotas`; those that are not here are the defaults.
    own: Mapping[str, int | None] = field(default_factory=dict[str, int | None])
    #: By base model, then by the names of `Rate`.
    rates: Mapping[str, Mapping[str, int | None]] = field(default_factory=dict[str, Mapping[str, int | None]])


class Bucket:
    """So much a minute: it fills evenly and holds no more than one minute's worth. Times are monotonic seconds."""

    __slots__ = ("_at", "_level", "per_minute")

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._at = now

    def resize(self, per_minute: int) -> None:
        """Have another size from here on; what was used stays used."""
        self._level += per_minute - self.per_minute
        self.per_minute = per_minute

    def wait_s(self, n: float, now: float) -> float:
        """Return how long it takes until `n` can be taken: 0 for now."""
        return max(0.0, n - self._filled(now)) * MINUTE_S / self.per_minute if self.per_minute else MINUTE_S

    def take(self, n: float, now: float) -> None:
        """Take `n`, whether it is there or not."""
        self._level = self._filled(now) - n

    def give(self, n: float, now: float) -> None:
        """Give back what was taken and not used, or with a negative number take what was used beyond."""
        self._level = min(self._filled(now) + n, float(self.per_minute))

    def left(self, now: float) -> int:
        """Return how much can be taken now."""
        return max(0, int(self._filled(now) + 1e-6))

    def full_s(self, now: float) -> float:
        """Return how long it takes until nothing is missing."""
        return self.wait_s(self.per_minute, now)

    def _filled(self, now: float) -> float:
        self._level = min(self._level + (now - self._at) * self.per_minute / MINUTE_S, float(self.per_minute))
        self._at = now
        return self._level
