"""Retention: what a project lets go by itself, and which of a job's checkpoints that is; nothing unless it says so."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Protocol

from tunesmith.domain.job import Checkpoint
from tunesmith.domain.ports import Blobs
from tunesmith.domain.recording import TrackerKind

#: What goes: uploaded files, result files, earlier checkpoints, what a reinforcement job sampled, and runs that trackers of
#: experiments keep in folders of this server.
Kind = Literal["files", "results", "checkpoints", "rollouts", "runs"]
KINDS: Final[tuple[Kind, ...]] = ("files", "results", "checkpoints", "rollouts", "runs")
#: The best one, the last one, or so many of the newest.
Keep = Literal["best", "last"] | int
DAY_S: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Rule:
    """What of a kind goes: all that is neither kept nor young; nothing where it says neither."""

    #: Of each job, for checkpoints and the steps of rollouts.
    keep: Keep | None = None
    older_than_days: int | None = None

    @property
    def says(self) -> bool:
        """Whether anything can go by it."""
        return self.keep is not None or self.older_than_days is not None

    def is_old(self, created_at: float, now: float) -> bool:
        """Say whether something is old enough to go."""
        return self.older_than_days is None or created_at <= now - self.older_than_days * DAY_S

    def n_newest(self) -> int | None:
        """Return how many of the newest are kept; None where the age alone decides."""
        return 1 if self.keep == "last" else self.keep if isinstance(self.keep, int) else None


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of a project."""

    project_id: str
    files: Rule = field(default_factory=Rule)
    results: Rule = field(default_factory=Rule)
    checkpoints: Rule = field(default_factory=Rule)
    rollouts: Rule = field(default_factory=Rule)
    runs: Rule = field(default_factory=Rule)

    def rules(self) -> dict[Kind, dict[str, Any]]:
        """Return the rules as they are stored and shown."""
        return {kind: asdict(getattr(self, kind)) for kind in KINDS}


@dataclass(frozen=True, slots=True)
class Found:
    """An object of a blob store, or what a put that never ended left of one."""

    key: str
    bytes: int
    modified_at: float


class WalkedBlobs(Blobs, Protocol):
    """A blob store that can be looked through."""

    def found(self, prefix: str) -> Iterable[Found]:
        """Yield every object under a prefix, and what puts that never ended left, in any order."""
        ...


@dataclass(frozen=True, slots=True)
class Going:
    """Something that goes."""

    #: `file`, `result_file`, `checkpoint`, `rollouts`, `run`, or `orphan` for bytes that no row names.
    kind: str
    project_id: str | None
    id: str
    #: Where its bytes lie.
    key: str
    bytes: int = 0
    #: The model's, of a checkpoint.
    name: str | None = None
    #: Whose folder it lies in, where that is not the store.
    tracker: TrackerKind | None = None


def checkpoints_to_go(
    rule: Rule, method: str, listed: Sequence[Checkpoint], final: str | None, now: float
) -> list[Checkpoint]:
    """Return those of an ended job's listed checkpoints that go by a rule; `final` is the name of its result, which stays.

    The result counts among those that are kept: where it is the best, `best` keeps no other.
    """
    if not rule.says:
        return []
    newest_first = sorted(listed, key=lambda checkpoint: checkpoint.step, reverse=True)
    kept: Sequence[Checkpoint] = ()
    if rule.keep == "best":
        kept = sorted(newest_first, key=lambda checkpoint: _badness(method, checkpoint))[:1]
    elif (n_kept := rule.n_newest()) is not None:
        kept = newest_first[:n_kept]
    stays = {checkpoint.id for checkpoint in kept}
    return [
        checkpoint
        for checkpoint in newest_first
        if checkpoint.id not in stays and checkpoint.model_name != final and rule.is_old(checkpoint.created_at, now)
    ]


def _badness(method: str, checkpoint: Checkpoint) -> float:
    """Return the loss on the validation file, or the reward on it, turned round; what was never measured is the worst.

    Of equal ones the newer is the better.
    """
    if method == "reinforcement":
        reward = checkpoint.metrics.get("valid_reward_mean")
        return math.inf if reward is None else -float(reward)
    for name in ("full_valid_loss", "valid_loss"):
        if (loss := checkpoint.metrics.get(name)) is not None:
            return float(loss)
    return math.inf
