"""What workers and owners do in the world, whoever makes them do it."""

from simulation.world import N_STEPS, Attempt, World
from tunesmith.domain.ports import Outcome
from tunesmith.domain.states import TERMINAL, Desired, Status


def work(world: World, attempt: Attempt, *, failing: bool = False) -> None:
    """Let a worker do the next thing and write it down; at its last word it leaves."""

    def say(kind: str) -> None:
        attempt.spool.append((kind, attempt.step))
        world.say("worker", attempt.job, attempt.attempt, kind, attempt.step)
        attempt.said = kind in ("validated", "failed", "paused", "finished")

    if attempt.job in world.deadly:
        world.say("worker", attempt.job, attempt.attempt, "dies")
        world.fault(attempt)
        attempt.worker, attempt.outcome = False, Outcome(1, None)
    elif failing:
        say("failed")
    elif attempt.kind == "validate":
        say("validated")
    elif not attempt.started:
        attempt.started = True
        say("started")
    elif attempt.step < N_STEPS:
        attempt.step += 1
        say("metrics")
        if attempt.pausing:
            say("paused")
        elif attempt.step < N_STEPS:
            say("checkpoint")
    else:
        say("finished")
    if attempt.said:
        attempt.worker = False
        attempt.outcome = Outcome(0, None)


def ask_to_pause(world: World, name: str) -> None:
    """Do what `services.pauses` does."""
    row = world.rows[name]
    if row.status in TERMINAL or row.status is Status.PAUSED or row.desired is Desired.PAUSE:
        return
    if row.status is Status.RUNNING:
        world.swap(name, {row.status}, row.attempt, desired=Desired.PAUSE)
        return
    validating = row.status is Status.VALIDATING_FILES and row.attempt > 0 and row.released_at is None
    fence = {"fence": True, "token_sha256": None} if validating else {}
    world.swap(name, {row.status}, row.attempt, status=Status.PAUSED, desired=Desired.PAUSE, **fence)


def resume(world: World, name: str) -> None:
    """Do what `services.pauses` does."""
    row = world.rows[name]
    if row.status is Status.RUNNING and row.desired is Desired.PAUSE:
        world.swap(name, {row.status}, row.attempt, desired=Desired.RUN)
    elif row.status is Status.PAUSED:
        status = Status.VALIDATING_FILES if row.resolved is None else Status.QUEUED
        turn = {"status": status, "queued_at": world.now, "waiting_for": None, "not_before": 0.0}
        world.swap(name, {row.status}, row.attempt, desired=Desired.RUN, **turn)
