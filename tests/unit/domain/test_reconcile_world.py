"""The reconciler in a small world of its own: rows, processes and time made up, every fault allowed, laws checked always."""

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tunesmith.domain.job import Job
from tunesmith.domain.ports import Outcome
from tunesmith.domain.reconcile import (
    Fail,
    Limits,
    Pause,
    Release,
    Requeue,
    Seen,
    Settle,
    Start,
    State,
    Stop,
    Sweep,
    step,
    undone,
)
from tunesmith.domain.states import MOVES, TERMINAL, Desired, Status

LIMITS = Limits(training_slots=3, validation_slots=2, max_attempts=3, training_slots_per_project=2)


def new_job(name: str, now: float) -> Job:
    return Job(
        id=name, project_id=f"p{int(name[1:]) % 2}", organization_id="o", model="m", base="m", start_adapter=None,
        training_file="f", validation_file=None, suffix=None, seed=1, method="supervised", method_config={}, resolved=None,
        integrations=[], metadata=None, created_at=now,
    )  # fmt: skip


class World(RuleBasedStateMachine):
    """Supervisors are `live[(job, attempt)]`; `orphans` are processes whose supervisor was killed."""

    @initialize()
    def begin(self) -> None:
        self.now = 1000.0
        self.state = State()
        self.rows: dict[str, Job] = {}
        self.live: dict[tuple[str, int], str] = {}
        self.orphans: set[tuple[str, int]] = set()
        self.deaf: set[tuple[str, int]] = set()
        self.outcomes: dict[str, Outcome] = {}
        self.unsent: dict[tuple[str, int], str] = {}
        self.pids: dict[int, tuple[str, int]] = {}
        self.ended: dict[str, Status] = {}

    def move(self, name: str, status: Status, **changes: Any) -> None:
        old = self.rows[name]
        assert status is old.status or status in MOVES[old.status]
        self.rows[name] = replace(old, status=status, **changes)
        if status in TERMINAL:
            assert name not in self.ended
            self.ended[name] = status

    def occupied(self, row: Job) -> bool:
        return row.attempt > 0 and row.released_at is None

    def look(self) -> Seen:
        rows = sorted(self.rows.values(), key=lambda row: (row.queued_at or row.created_at, row.id))
        occupied = tuple(row for row in rows if self.occupied(row))
        alive = frozenset(row.id for row in occupied if row.handle and self.pids[row.handle["pid"]] in self.live)
        waiting = [row for row in rows if not self.occupied(row)]
        return Seen(
            now=self.now,
            monotonic=self.now,
            occupied=occupied,
            to_validate=tuple(row for row in waiting if row.status is Status.VALIDATING_FILES),
            to_train=tuple(row for row in waiting if row.status is Status.QUEUED),
            alive=alive,
            strays=frozenset(key[0] for key in (*self.live, *self.orphans)),
            outcomes=dict(self.outcomes),
            limits=LIMITS,
        )

    def tick(self, *, failing: int | None = None, dying: int | None = None) -> None:
        """One tick; effect number `failing` cannot be carried out, and the server dies after number `dying`."""
        self.state, effects = step(self.state, self.look())
        failed = []
        for number, effect in enumerate(effects):
            if number == failing:
                failed.append(effect)
                continue
            self.act(effect)
            if number == dying:
                self.state = State()
                return
        self.state = undone(self.state, failed)

    def act(self, effect: Any) -> None:
        now = self.now
        match effect:
            case Start(name, kind, attempt):
                assert self.rows[name].attempt == attempt
                status = Status.RUNNING if kind == "train" else Status.VALIDATING_FILES
                started_at = self.rows[name].started_at or (now if kind == "train" else None)
                pid = len(self.pids) + 1
                self.pids[pid] = (name, attempt + 1)
                self.live[(name, attempt + 1)] = kind
                handle = {"pid": pid, "start_time": 0, "boot_id": ""}
                self.outcomes.pop(name, None)
                claimed = {"attempt": attempt + 1, "released_at": None, "started_at": started_at, "token_sha256": "t"}
                self.move(name, status, handle=handle, **claimed)
            case Stop(_, handle):
                if self.pids[handle.pid] not in self.deaf:
                    self.live.pop(self.pids[handle.pid], None)
            case Sweep(name):
                self.sweep(name)
            case Settle(name, attempt):
                self.report(name, attempt, self.unsent.pop((name, attempt), ""))
            case Release(name, attempt):
                assert self.rows[name].attempt == attempt
                self.rows[name] = replace(self.rows[name], released_at=now, handle=None)
            case Requeue(name, attempt, lost, not_before, _):
                assert (name, attempt) not in self.unsent, "requeued although the attempt had told its end"
                assert self.rows[name].desired is Desired.RUN, "requeued although a pause is wanted"
                queued = Status.QUEUED if self.rows[name].status is Status.RUNNING else Status.VALIDATING_FILES
                self.move(name, queued, released_at=now, handle=None, lost_attempts=lost, not_before=not_before)
            case Pause(name, attempt, _):
                assert (name, attempt) not in self.unsent, "paused short although the attempt had told its end"
                assert self.rows[name].desired is Desired.PAUSE
                self.move(name, Status.PAUSED, released_at=now, handle=None)
            case Fail(name, _, lost, _, _):
                self.move(name, Status.FAILED, released_at=now, handle=None, lost_attempts=lost)

    def sweep(self, name: str) -> None:
        for key in [key for key in (*self.live, *self.orphans) if key[0] == name]:
            self.live.pop(key, None)
            self.orphans.discard(key)

    def report(self, name: str, attempt: int, kind: str) -> None:
        """What the server makes of an attempt's last report: nothing, when the attempt is fenced."""
        row = self.rows[name]
        if row.attempt != attempt or row.status in TERMINAL or not kind:
            return
        if kind == "failed":
            self.move(name, Status.FAILED)
        elif row.status is Status.VALIDATING_FILES:
            self.move(name, Status.QUEUED, queued_at=self.now)
        elif row.status is Status.RUNNING and kind == "paused":
            self.move(name, Status.PAUSED if row.desired is Desired.PAUSE else Status.QUEUED)
        elif row.status is Status.RUNNING:
            self.move(name, Status.SUCCEEDED)

    def pick(self, number: int) -> tuple[str, int] | None:
        keys = sorted(self.live)
        return keys[number % len(keys)] if keys else None

    @rule(n_jobs=st.integers(1, 6), validated=st.booleans())
    def create(self, n_jobs: int, validated: bool) -> None:
        for _ in range(n_jobs):
            name = f"j{len(self.rows)}"
            self.rows[name] = new_job(name, self.now)
            if validated:
                past = {"attempt": 1, "released_at": self.now, "queued_at": self.now}
                self.rows[name] = replace(self.rows[name], status=Status.QUEUED, **past)

    @rule(failing=st.none() | st.integers(0, 3), dying=st.none() | st.integers(0, 3))
    def look_and_act(self, failing: int | None, dying: int | None) -> None:
        self.tick(failing=failing, dying=dying)

    @rule(number=st.integers(0, 9), kind=st.sampled_from(["done", "failed", "paused"]), heard=st.booleans())
    def worker_ends(self, number: int, kind: str, heard: bool) -> None:
        if key := self.pick(number):
            if kind == "paused" and self.live[key] == "validate":
                return
            if heard:
                self.report(*key, kind)
            else:
                self.unsent[key] = kind
            self.outcomes[key[0]] = Outcome(0, None)
            del self.live[key]

    @rule(number=st.integers(0, 9), orphans=st.booleans(), record=st.booleans())
    def killed_from_outside(self, number: int, orphans: bool, record: bool) -> None:
        if key := self.pick(number):
            del self.live[key]
            if orphans:
                self.orphans.add(key)
            elif record:
                self.outcomes[key[0]] = Outcome(None, 9)

    @rule(number=st.integers(0, 9))
    def stops_listening(self, number: int) -> None:
        if key := self.pick(number):
            self.deaf.add(key)

    @rule(number=st.integers(0, 9), living=st.booleans())
    def cancel(self, number: int, living: bool) -> None:
        key = self.pick(number)
        row = self.rows.get(key[0] if key and living else f"j{number}")
        if row is not None and row.status not in TERMINAL:
            self.move(row.id, Status.CANCELLED, desired=Desired.CANCEL, attempt=row.attempt + 1)

    @rule(number=st.integers(0, 9), living=st.booleans())
    def pause(self, number: int, living: bool) -> None:
        key = self.pick(number)
        row = self.rows.get(key[0] if key and living else f"j{number}")
        if row is None or row.status in {*TERMINAL, Status.PAUSED}:
            return
        if row.status is Status.RUNNING:
            self.move(row.id, row.status, desired=Desired.PAUSE)
        elif row.status is Status.VALIDATING_FILES and self.occupied(row):
            self.move(row.id, Status.PAUSED, desired=Desired.PAUSE, attempt=row.attempt + 1, token_sha256=None)
        else:
            self.move(row.id, Status.PAUSED, desired=Desired.PAUSE)

    @rule(number=st.integers(0, 9))
    def resume(self, number: int) -> None:
        if row := self.rows.get(f"j{number}"):
            self.resumed(row)

    def resumed(self, row: Job) -> None:
        if row.status is Status.PAUSED:
            self.move(row.id, Status.QUEUED if row.queued_at else Status.VALIDATING_FILES, desired=Desired.RUN)
        elif row.status is Status.RUNNING:
            self.move(row.id, row.status, desired=Desired.RUN)

    @rule()
    def server_restarts(self) -> None:
        self.state = State()

    @rule(seconds=st.floats(0.01, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def laws(self) -> None:
        if not hasattr(self, "rows"):
            return
        everything = {*self.live, *self.orphans}
        names = [name for name, _ in everything]
        assert len(names) == len(set(names)), "two attempts of one job live at once"
        kinds = list(self.live.values())
        assert kinds.count("train") <= LIMITS.training_slots
        assert kinds.count("validate") <= LIMITS.validation_slots
        for project in ("p0", "p1"):
            held = [row for row in self.rows.values() if row.project_id == project and self.occupied(row) and row.started_at]
            assert len(held) <= 2, "a project trains more than it may"
        for name in names:
            assert self.occupied(self.rows[name]), "a slot is free although something lives"
        for row in self.rows.values():
            assert row.lost_attempts <= LIMITS.max_attempts

    def teardown(self) -> None:
        """Left in peace and resumed, every job comes to its end, and nothing stays alive or occupied."""
        for _ in range(60 * len(getattr(self, "rows", {}))):
            self.tick()
            self.laws()
            self.now += 10.0
            for row in list(self.rows.values()):
                self.resumed(row)
            if not any(self.occupied(row) for row in self.rows.values()) and set(self.rows) == set(self.ended):
                break
            for key in sorted(self.live):
                if self.occupied(self.rows[key[0]]) and key in self.state.known:
                    self.report(*key, "done")
                    if key not in self.deaf:
                        del self.live[key]
        else:
            assert not getattr(self, "rows", {}), "the world does not come to rest"
        assert not getattr(self, "live", {})
        assert not getattr(self, "orphans", set())


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=100, stateful_step_count=40)
