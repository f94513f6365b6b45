"""A server of the world: the reconciler with the hands that the scheduler gives it, to be interrupted between any two."""

from collections.abc import Callable, Generator
from dataclasses import asdict
from typing import TypeGuard

from simulation.world import LIMITS, Attempt, Broken, Fenced, World
from tunesmith.domain.job import Job
from tunesmith.domain.ports import Handle
from tunesmith.domain.queue import in_backoff
from tunesmith.domain.reconcile import (
    Adopt,
    Effect,
    Fail,
    Pause,
    Release,
    Requeue,
    Seen,
    Settle,
    Start,
    State,
    Stop,
    Sweep,
    Tell,
    undone,
)
from tunesmith.domain.states import Desired, Status

Step = Callable[[State, Seen], tuple[State, list[Effect]]]


class Refused(Exception):
    """The disk is full, or the database away: an effect cannot be carried out."""


class Server:
    """A scheduler's tick as a generator: it stands still wherever a crash, another server or a client can come between."""

    def __init__(self, world: World, machine: int, step: Step) -> None:
        self.world = world
        self.machine = machine
        self.up = True
        #: How many of the next things that it does go wrong.
        self.n_refusals = 0
        self._step = step
        self._state = State()
        self._tick: Generator[None] | None = None

    def crash(self) -> None:
        """Lose everything that is only remembered."""
        self.world.say("crash", f"machine {self.machine}")
        self.up = False
        self._tick = None

    def go_on(self) -> bool:
        """Do the next thing; False when a tick has ended with it."""
        if self._tick is None:
            self._tick = self._look_and_act()
        if next(self._tick, self) is self:
            self._tick = None
        return self._tick is not None

    def whole_tick(self) -> None:
        """Finish the tick that is under way, or do a whole one."""
        while self.go_on():
            pass

    def _look_and_act(self) -> Generator[None]:
        rows = self.world.occupied()
        waiting = sorted(self.world.rows.values(), key=lambda row: (row.queued_at or row.created_at, row.id))
        yield
        self._state, effects = self._step(self._state, self._see(rows, waiting))
        failed: list[Effect] = []
        for effect in effects:
            yield
            try:
                yield from self._act(effect)
            except Refused:
                failed.append(effect)
        self._state = undone(self._state, failed)

    def _see(self, rows: list[Job], waiting: list[Job]) -> Seen:
        world = self.world
        ready = [
            row
            for row in waiting
            if row.desired is Desired.RUN
            and not in_backoff(row, world.wall)
            and (row.attempt == 0 or row.released_at is not None)
        ]
        alive = frozenset(row.id for row in rows if row.handle is not None and self._alive(Handle(**row.handle)))
        dead = [row for row in rows if row.id not in alive]
        last = {row.id: world.of(row.id, row.attempt) for row in dead}
        return Seen(
            now=world.wall,
            monotonic=world.now,
            occupied=tuple(rows),
            to_validate=tuple(row for row in ready if row.status is Status.VALIDATING_FILES)[:3],
            to_train=tuple(row for row in ready if row.status is Status.QUEUED)[:6],
            alive=alive,
            strays=frozenset(a.job for a in world.living() if a.machine == self.machine) if dead else frozenset(),
            outcomes={name: attempt.outcome for name, attempt in last.items() if attempt and attempt.outcome is not None},
            limits=LIMITS,
            unnoted={row.id: last[row.id].handle for row in dead if row.handle is None and self._filed(last[row.id])},
            untold=tuple(row for row in ready if row.status is Status.QUEUED and row.waiting_for is None),
        )

    def _alive(self, handle: Handle) -> bool:
        attempt = self.world.pids[handle.pid]
        return attempt.supervisor and attempt.machine == self.machine

    def _filed(self, attempt: Attempt | None) -> TypeGuard[Attempt]:
        """Say whether a file tells of a supervisor that lives here."""
        return attempt is not None and attempt.filed and attempt.supervisor and attempt.machine == self.machine

    def _may_refuse(self) -> None:
        if self.n_refusals:
            self.n_refusals -= 1
            self.world.say("refused")
            raise Refused

    def _act(self, effect: Effect) -> Generator[None]:
        world = self.world
        self._may_refuse()
        world.say(f"machine {self.machine}:", effect if not isinstance(effect, Start) else f"start {effect.job_id}")
        match effect:
            case Start():
                yield from self._start(effect)
            case Stop(_, handle):
                if world.pids[handle.pid].machine == self.machine:
                    world.stop(handle)
            case Sweep(name):
                world.sweep(name, self.machine)
            case Settle(name, number):
                yield from self._settle(name, number)
            case _:
                self._commit(effect)

    def _commit(self, effect: Effect) -> None:
        world = self.world
        match effect:
            case Adopt(name, number, handle):
                self._placed(name, number, handle)
            case Release(name, number):
                world.swap(name, {world.rows[name].status}, number, handle=None, token_sha256=None, released_at=world.now)
            case Requeue():
                self._requeue(effect)
            case Pause():
                self._pause(effect)
            case Fail(name, number, lost):
                self._heard_out(name, number)
                freed = {"handle": None, "token_sha256": None, "released_at": world.now}
                world.end(name, Status.FAILED, number, lost_attempts=lost, **freed)
            case Tell(name, number, reason):
                told = world.swap(name, {Status.QUEUED}, number, Desired.RUN, waiting_for=reason)
                if told is not None:
                    world.tell(name, f"waiting-{told.version}")
            case _:
                raise Broken(f"the world does not know {effect}")

    def _start(self, start: Start) -> Generator[None]:
        world = self.world
        status = Status.QUEUED if start.kind == "train" else Status.VALIDATING_FILES
        row = world.rows[start.job_id]
        if row.status is not status or row.attempt != start.attempt:
            return
        if start.job_id in world.robbed:
            world.end(start.job_id, Status.FAILED, start.attempt)
            return
        training = {"status": Status.RUNNING, "started_at": row.started_at or world.now} if start.kind == "train" else {}
        number = start.attempt + 1
        claim = {"attempt": number, "token_sha256": "t", "handle": None, "released_at": None, "waiting_for": None}
        world.swap(start.job_id, {status}, start.attempt, **claim, **training)
        yield
        if self.n_refusals:
            world.n_faults[start.job_id] += 1
        self._may_refuse()
        spawned = world.spawn(start.job_id, number, start.kind, self.machine)
        yield
        spawned.filed = True
        yield
        if self._placed(start.job_id, number, spawned.handle) is None:
            yield
            world.stop(spawned.handle)

    def _placed(self, name: str, number: int, handle: Handle) -> Job | None:
        return self.world.swap(name, frozenset(Status) - {Status.CANCELLED}, number, handle=asdict(handle))

    def _settle(self, name: str, number: int) -> Generator[None]:
        attempt = self.world.of(name, number)
        here = attempt is not None and attempt.machine == self.machine
        reports = attempt.spool[attempt.n_sent :] if here else []
        yield
        try:
            self.world.take(name, number, reports)
        except Fenced:
            self.world.say("fenced", name, number)
        if here:
            attempt.n_settled = attempt.n_sent + len(reports)

    def _requeue(self, requeue: Requeue) -> None:
        world, name = self.world, requeue.job_id
        row = world.rows[name]
        moved = world.swap(
            name,
            {Status.VALIDATING_FILES, Status.RUNNING},
            requeue.attempt,
            Desired.RUN,
            status=Status.QUEUED if row.status is Status.RUNNING else Status.VALIDATING_FILES,
            lost_attempts=requeue.lost_attempts,
            not_before=requeue.not_before,
            handle=None,
            token_sha256=None,
            released_at=world.now,
        )
        if moved is not None:
            self._heard_out(name, requeue.attempt)
            world.tell(name, f"lost-{requeue.attempt}")

    def _pause(self, pause: Pause) -> None:
        world, name = self.world, pause.job_id
        freed = {"handle": None, "token_sha256": None, "released_at": world.now}
        moved = world.swap(name, {Status.RUNNING}, pause.attempt, Desired.PAUSE, status=Status.PAUSED, **freed)
        if moved is not None:
            self._heard_out(name, pause.attempt)
            world.tell(name, f"paused-{moved.version}")

    def _heard_out(self, name: str, number: int) -> None:
        """Hold that nobody decides about an attempt before everything that it wrote down was taken."""
        attempt = self.world.of(name, number)
        if self.world.alone and attempt is not None and max(attempt.n_sent, attempt.n_settled) < len(attempt.spool):
            raise Broken(f"{name} was decided about while attempt {number} had more to say: {attempt.spool[-1]}")
