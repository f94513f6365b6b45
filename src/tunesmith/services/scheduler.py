"""The scheduler: a thread that looks, lets the reconciler decide, and carries out what it says."""

import math
import threading
from dataclasses import replace
from typing import Final

import structlog

from tunesmith.core.clock import Clock
from tunesmith.domain import reconcile
from tunesmith.domain.job import Job
from tunesmith.domain.ports import Executor, Handle, Outcome
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
)
from tunesmith.services.attempts import Attempts
from tunesmith.services.placement import Placement

log = structlog.get_logger()

_LEFT: Final = "they go on, and the server's next start takes them over; with --drain they are paused meanwhile"


class Scheduler:
    """Ticks when woken, and every half second; the only caller of the executor besides cancel's immediate stop."""

    def __init__(
        self,
        *,
        placement: Placement,
        attempts: Attempts,
        executor: Executor,
        clock: Clock,
    ) -> None:
        self._placement = placement
        self._attempts = attempts
        self._executor = executor
        self._clock = clock
        self._open = True
        self._state = State()
        self._changed = threading.Condition()
        self._due = 0.0
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Begin to schedule; attempts of an earlier server that live go on as this server's."""
        self._thread.start()

    def wake(self, after_s: float = 0.0) -> None:
        """Ask for a tick, at the latest after so long; cheap, from any thread."""
        due = self._clock.monotonic() + after_s
        with self._changed:
            if due < self._due:
                self._due = due
                self._changed.notify()

    def start_no_more(self) -> None:
        """Start no job from here on; what runs is still looked after."""
        self._open = False

    def stop(self, *, timeout_s: float = 5.0) -> None:
        """Stop scheduling; what runs goes on, and the next server takes it over."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        placed = [job for job in self._placement.look(0)[0] if job.handle is not None]
        running = [job.id for job in placed if self._executor.alive(_handle(job))]
        if running:
            log.info("server.leaves_running", jobs=running, hint=_LEFT)

    def _run(self) -> None:
        while self._wait():
            try:
                rest_s = self.tick()
            except Exception:  # whatever went wrong with the rows, the next tick must come
                log.exception("scheduler.tick")
                rest_s = reconcile.CALM_S
            self.wake(rest_s)

    def _wait(self) -> bool:
        """Wait until a tick is due; what asks for one from here on asks for the next. False at the end."""
        with self._changed:
            while not self._ending and (rest_s := self._due - self._clock.monotonic()) > 0:
                self._changed.wait(rest_s)
            self._due = math.inf
        return not self._ending

    def tick(self) -> float:
        """Look, decide, act once; return how many seconds the next tick may wait."""
        seen = self._look()
        self._state, effects = reconcile.step(self._state, seen)
        failed: list[Effect] = []
        for effect in effects:
            if self._ending:
                return reconcile.CALM_S
            try:
                self._act(effect)
            except Exception:  # one job's trouble (a full disk, say) is not another's
                log.exception("scheduler.effect", effect=effect)
                failed.append(effect)
        self._state = reconcile.undone(self._state, failed)
        return reconcile.CALM_S if failed else reconcile.rest_s(self._state, effects, seen.monotonic)

    def _look(self) -> Seen:
        limits = self._placement.limits()
        if not self._open:
            limits = replace(limits, training_slots=0, validation_slots=0)
        occupied, to_validate, to_train = self._placement.look(max(limits.training_slots, limits.validation_slots))
        alive = frozenset(job.id for job in occupied if job.handle is not None and self._executor.alive(_handle(job)))
        dead = [job for job in occupied if job.id not in alive]
        strays = frozenset(job_id for job_id, _ in self._executor.strays()) if dead else frozenset[str]()
        return Seen(
            now=self._clock.now(),
            monotonic=self._clock.monotonic(),
            occupied=tuple(occupied),
            to_validate=tuple(to_validate),
            to_train=tuple(to_train),
            alive=alive,
            strays=strays,
            unnoted=self._unnoted(dead),
            outcomes=self._outcomes(dead),
            limits=limits,
            untold=tuple(self._placement.untold(reconcile.N_TOLD)),
        )

    def _unnoted(self, dead: list[Job]) -> dict[str, Handle]:
        found = {job.id: self._executor.find(job.id, job.attempt) for job in dead if job.handle is None}
        return {job_id: handle for job_id, handle in found.items() if handle is not None and self._executor.alive(handle)}

    def _outcomes(self, dead: list[Job]) -> dict[str, Outcome]:
        found = {job.id: self._executor.outcome(job.id, job.attempt) for job in dead}
        return {job_id: outcome for job_id, outcome in found.items() if outcome is not None}

    def _act(self, effect: Effect) -> None:
        match effect:
            case Start():
                self._start(effect)
            case Stop(_, handle):
                self._executor.stop(handle)
            case Sweep(job_id):
                self._executor.sweep(job_id)
            case Settle(job_id, attempt):
                self._attempts.settle(job_id, attempt, self._executor.rest(job_id, attempt))
            case _:
                self._note(effect)

    def _note(self, effect: Effect) -> None:
        """Carry out what is nothing but a change of rows."""
        match effect:
            case Adopt(job_id, attempt, handle):
                self._placement.placed(job_id, attempt, handle)
                log.info("attempt.adopted", job=job_id, attempt=attempt, pid=handle.pid)
            case Release():
                self._placement.release(effect)
            case Requeue():
                self._placement.requeue(effect)
            case Pause():
                self._placement.pause(effect)
            case Fail():
                self._placement.give_up(effect)
            case Tell():
                self._placement.tell(effect)
            case Start() | Stop() | Sweep() | Settle():
                raise TypeError(f"{effect} is more than a change of rows")

    def _start(self, start: Start) -> None:
        task = self._placement.claim(start)
        if task is None:
            return
        handle = self._executor.start(task)
        if not self._placement.placed(task.job, task.attempt, handle):
            # cancelled between the claim and here, when nobody could know whom to kill
            self._executor.stop(handle)


def _handle(job: Job) -> Handle:
    if job.handle is None:
        raise ValueError(f"{job.id} has no handle")
    return Handle(**job.handle)
