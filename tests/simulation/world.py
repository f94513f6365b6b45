"""A world in little: rows that change by compare-and-set, supervisors, workers and spools of two machines, and a clock.

It does what the store, the services and the executor do, in as few lines as the reconciler can tell apart, and holds the
laws that each single change must keep. Whoever changes what a report or an effect does to a row changes it here too.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tunesmith.core.channel import LEASE_EXPIRED
from tunesmith.domain.job import Job
from tunesmith.domain.ports import Handle, Outcome
from tunesmith.domain.queue import Limits
from tunesmith.domain.states import MOVES, TERMINAL, Desired, Status

LIMITS: Final = Limits(training_slots=3, validation_slots=1, max_attempts=3, training_slots_per_project=2)
N_STEPS: Final = 3
HEARTBEAT_S: Final = 2.0
SILENCE_S: Final = 10.0
UNFINISHED: Final = frozenset(Status) - TERMINAL

_BLANK: Final = Job(
    id="", project_id="p", organization_id="o", model="m", base="m", start_adapter=None, training_file="f",
    validation_file=None, suffix=None, seed=1, method="supervised", method_config={}, resolved=None, integrations=[],
    metadata=None, created_at=0.0,
)  # fmt: skip


class Broken(AssertionError):
    """A law of the world was broken."""


class Fenced(Exception):
    """The attempt is no longer its job's."""


@dataclass(eq=False)
class Attempt:
    """A supervisor with its worker; what both leave behind stays here when they are gone."""

    job: str
    attempt: int
    kind: str
    machine: int
    pid: int
    boot: int
    heard_at: float
    #: The step after which the worker's checkpoint stands.
    step: int
    supervisor: bool = True
    worker: bool = True
    #: Something that the worker started and that outlived its supervisor.
    orphan: bool = False
    #: The supervisor was stopped (SIGSTOP): it sends nothing and does not do what it is told.
    stopped: bool = False
    #: The worker makes no step any more.
    stuck: bool = False
    dying: bool = False
    #: A file tells where it is, whether or not the row does.
    filed: bool = False
    started: bool = False
    pausing: bool = False
    #: Whether the worker has said its last word.
    said: bool = False
    spool: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    n_sent: int = 0
    #: How much of the spool was taken after its death.
    n_settled: int = 0
    outcome: Outcome | None = None

    @property
    def lives(self) -> bool:
        return self.supervisor or self.worker or self.orphan

    @property
    def handle(self) -> Handle:
        return Handle(self.pid, 1, str(self.boot))

    def die(self, outcome: Outcome | None) -> None:
        self.supervisor = self.worker = self.orphan = self.dying = False
        self.outcome = outcome


class World:
    """Everything that outlives a server. With `alone` no two servers are ever up at once, as the lock of a folder has it."""

    def __init__(self, *, alone: bool) -> None:
        self.alone = alone
        #: Seconds that only go on, and how far the wall clock is from them.
        self.now = 1000.0
        self.skew = 0.0
        self.boots = [1, 2]
        self.rows: dict[str, Job] = {}
        self.events: dict[str, list[str]] = {}
        self.checkpoints: dict[str, list[int]] = {}
        self.attempts: dict[str, list[Attempt]] = {}
        self.pids: dict[int, Attempt] = {}
        #: How often something happened to a job that may cost it an attempt.
        self.n_faults: dict[str, int] = {}
        #: Jobs whose files are gone, so that they cannot start.
        self.robbed: set[str] = set()
        #: Jobs that kill every worker.
        self.deadly: set[str] = set()
        self.trace: list[str] | None = None

    @property
    def wall(self) -> float:
        return self.now + self.skew

    def say(self, *words: object) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now - 1000.0:9.2f} " + " ".join(map(str, words)))

    # rows

    def create(self, *, validated: bool) -> str:
        name = f"j{len(self.rows)}"
        row = replace(_BLANK, id=name, project_id=f"p{len(self.rows) % 2}", created_at=self.now)
        if validated:
            past: dict[str, Any] = {"attempt": 1, "released_at": self.now, "queued_at": self.now, "resolved": {}}
            row = replace(row, status=Status.QUEUED, **past)
        self.rows[name] = row
        self.events[name], self.checkpoints[name], self.attempts[name], self.n_faults[name] = ["created"], [], [], 0
        self.say("create", name, row.status)
        return name

    def swap(
        self,
        name: str,
        expect_status: Collection[Status],
        expect_attempt: int | None = None,
        expect_desired: Desired | None = None,
        *,
        fence: bool = False,
        **changes: Any,
    ) -> Job | None:
        """Do what `store.jobs.swap` does, and hold every change against the laws of a single row."""
        row = self.rows[name]
        target = changes.get("status", row.status)
        if row.status not in expect_status or (target is not row.status and target not in MOVES[row.status]):
            return None
        if expect_attempt not in (None, row.attempt) or expect_desired not in (None, row.desired):
            return None
        if fence:
            changes["attempt"] = row.attempt + 1
        after = replace(row, version=row.version + 1, **changes)
        self.rows[name] = after
        self.say("row", name, f"{row.status}#{row.attempt}", "->", f"{after.status}#{after.attempt}", after.desired)
        if row.status in TERMINAL and after.status is not row.status:
            raise Broken(f"{name} left {row.status} for {after.status}")
        if self.alone and after.lost_attempts > self.n_faults[name]:
            raise Broken(f"{name} lost {after.lost_attempts} attempts, and only {self.n_faults[name]} faults happened to it")
        if after.lost_attempts > LIMITS.max_attempts:
            raise Broken(f"{name} lost {after.lost_attempts} attempts, and may lose {LIMITS.max_attempts}")
        if after.attempt < row.attempt:
            raise Broken(f"{name} went back to attempt {after.attempt}")
        if self.alone and row.released_at is None and after.released_at is not None:
            self._freed(after)
        return after

    def _freed(self, row: Job) -> None:
        for attempt in self.attempts[row.id]:
            if attempt.lives:
                raise Broken(f"the slot of {row.id} was freed while attempt {attempt.attempt} lives")

    def occupied(self) -> list[Job]:
        return [row for row in self.rows.values() if row.attempt > 0 and row.released_at is None]

    def tell(self, name: str, key: str) -> None:
        """Append an event, once; the terminal one is the last."""
        told = self.events[name]
        if key in told:
            return
        if "terminal" in told:
            raise Broken(f"{name} was told '{key}' after its end")
        told.append(key)

    # what an attempt reports

    def authorise(self, attempt: Attempt) -> str:
        row = self.rows[attempt.job]
        if row.attempt != attempt.attempt or row.token_sha256 is None:
            raise Fenced
        return str(row.desired)

    def take(self, name: str, number: int, reports: list[tuple[str, int]]) -> str:
        """Do what `services.attempts` does with reports, in order."""
        row = self.rows[name]
        for kind, step in reports:
            row = self.rows[name]
            if row.attempt != number:
                raise Fenced
            if row.status in TERMINAL:
                break
            self._take(row, kind, step)
        row = self.rows[name]
        if row.attempt != number:
            raise Fenced
        return str(row.desired)

    def _take(self, row: Job, kind: str, step: int) -> None:
        name, number = row.id, row.attempt
        match kind:
            case "validated" if row.status is Status.VALIDATING_FILES:
                self.swap(name, {row.status}, number, status=Status.QUEUED, queued_at=self.now, resolved={})
                self.tell(name, "validated")
            case "started":
                self.tell(name, f"started-{number}")
            case "metrics":
                self.tell(name, f"s{step}")
            case "checkpoint" if row.status is Status.RUNNING:
                self._checkpoint(name, step)
            case "paused" if row.status is Status.RUNNING:
                self._checkpoint(name, step)
                rests = row.desired is Desired.PAUSE
                after = self.swap(name, {row.status}, number, status=Status.PAUSED if rests else Status.QUEUED)
                if rests and after is not None:
                    self.tell(name, f"paused-{after.version}")
            case "failed":
                self.end(name, Status.FAILED, number)
            case "finished" if row.status is Status.RUNNING:
                if [key for key in self.events[name] if key[0] == "s" and key[1:].isdigit()] != ["s1", "s2", "s3"]:
                    raise Broken(f"{name} succeeded with the steps of {self.events[name]}")
                self._checkpoint(name, step)
                self.end(name, Status.SUCCEEDED, number)
            case _:
                pass

    def _checkpoint(self, name: str, step: int) -> None:
        if step not in self.checkpoints[name]:
            self.checkpoints[name].append(step)
            self.tell(name, f"ckpt-{step}")

    def end(self, name: str, status: Status, number: int | None, *, fence: bool = False, **changes: Any) -> Job | None:
        ended = self.swap(name, UNFINISHED, number, fence=fence, status=status, finished_at=self.now, **changes)
        if ended is not None:
            self.tell(name, "terminal")
        return ended

    # processes

    def spawn(self, name: str, number: int, kind: str, machine: int) -> Attempt:
        self.say("spawn", name, number, kind, f"machine {machine}")
        living = [attempt for attempts in self.attempts.values() for attempt in attempts if attempt.lives]
        if self.alone:
            if any(attempt.job == name for attempt in living):
                raise Broken(f"two attempts of {name} live at once")
            slots = LIMITS.training_slots if kind == "train" else LIMITS.validation_slots
            if sum(attempt.kind == kind for attempt in living) >= slots:
                raise Broken(f"more than {slots} slots to {kind} are taken")
            project = self.rows[name].project_id
            n_of_project = sum(
                attempt.kind == "train" and self.rows[attempt.job].project_id == project for attempt in living
            )
            if kind == "train" and n_of_project >= LIMITS.training_slots_per_project:
                raise Broken(f"{project} trains more than it may")
        pid = len(self.pids) + 1
        step = max(self.checkpoints[name], default=0)
        made = Attempt(name, number, kind, machine, pid, self.boots[machine], self.now, step)
        self.attempts[name].append(made)
        self.pids[pid] = made
        return made

    def of(self, name: str, number: int) -> Attempt | None:
        return next((attempt for attempt in self.attempts[name] if attempt.attempt == number), None)

    def living(self) -> list[Attempt]:
        return [attempt for attempt in self.pids.values() if attempt.lives]

    def fault(self, attempt: Attempt) -> None:
        if not attempt.said:
            self.n_faults[attempt.job] += 1

    def stop(self, handle: Handle) -> None:
        """Tell a supervisor to kill its tree; it does so a moment later."""
        attempt = self.pids[handle.pid]
        if attempt.supervisor and not attempt.stopped and not attempt.dying:
            self.say("stop", attempt.job, attempt.attempt)
            self.fault(attempt)
            attempt.dying = True

    def sweep(self, name: str, machine: int) -> None:
        for attempt in self.attempts[name]:
            if attempt.lives and attempt.machine == machine:
                self.say("sweep", name, attempt.attempt)
                self.fault(attempt)
                attempt.die(attempt.outcome)

    def pass_time(self, seconds: float) -> None:
        """Let the clock go on: who was told to die dies, and where others may start its job, who heard nothing for long."""
        self.now += seconds
        for attempt in self.living():
            silent = not self.alone and self.now - attempt.heard_at > SILENCE_S
            if attempt.dying or (silent and attempt.supervisor and not attempt.stopped):
                if silent and not attempt.dying:
                    self.say("silence", attempt.job, attempt.attempt)
                    self.fault(attempt)
                attempt.die(
                    Outcome(None, 9, killed=True, cause=LEASE_EXPIRED if silent and not attempt.dying else "stopped")
                )
