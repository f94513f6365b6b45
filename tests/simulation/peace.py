"""The end of a story: nothing goes wrong any more, and every job must come to its own."""

from collections.abc import Callable
from typing import Final

from simulation.people import ask_to_pause, resume, work
from simulation.server import Server
from simulation.world import Attempt, Broken, World
from tunesmith.domain.reconcile import LEAVING_S, PAUSE_GRACE_S, STUBBORN_S
from tunesmith.domain.states import TERMINAL, Status

TICK_S: Final = 0.5
#: After how much time a server that nobody disturbs has seen off whatever is to go.
SEEN_OFF_S: Final = LEAVING_S + STUBBORN_S + 6 * TICK_S
#: How long a job may take to its end, waiting for others included: a hung worker is paused, and that takes a minute.
A_JOB_S: Final = PAUSE_GRACE_S + 30.0


class Peace:
    """One server is left; owners resume what is paused, and pause what hangs."""

    def __init__(self, world: World, server: Server, send: Callable[[Attempt, Server], None]) -> None:
        self.world = world
        self.server = server
        self.send = send

    def reign(self, cancelled: set[str]) -> None:
        """Bring the world to rest, and hold what is left against what the owners were told."""
        world = self.world
        world.say("peace")
        for attempt in world.living():
            unseen = not world.alone and world.rows[attempt.job].released_at is not None
            if unseen or attempt.machine != self.server.machine:  # what nobody looks after dies with its machine
                world.fault(attempt)
                attempt.die(None)
        began, end = world.now, world.now + SEEN_OFF_S + A_JOB_S * len(world.rows)
        while not self._at_rest():
            if world.now > end:
                raise Broken(f"no rest within {end - began:.0f} s: {self._restless()}")
            self._half_a_second()
            if world.now > began + SEEN_OFF_S:
                self._seen_off(began)
        self._look_back(cancelled)

    def _half_a_second(self) -> None:
        world = self.world
        for attempt in world.living():
            if attempt.worker and not attempt.stuck:
                work(world, attempt)
            if attempt.supervisor and not attempt.stopped:
                self.send(attempt, self.server)
                if not attempt.worker and attempt.n_sent == len(attempt.spool):
                    attempt.die(attempt.outcome)
        self.server.whole_tick()
        world.pass_time(TICK_S)
        for row in list(world.rows.values()):
            hangs = any(attempt.lives and (attempt.stuck or attempt.stopped) for attempt in world.attempts[row.id])
            if hangs:
                ask_to_pause(world, row.id)
            elif row.status is Status.PAUSED:
                resume(world, row.id)

    def _seen_off(self, began: float) -> None:
        """Hold that no process of an ended job is left, once the server has had its time."""
        for attempt in self.world.living():
            row = self.world.rows[attempt.job]
            if row.status in TERMINAL and self.world.now > max(began, row.finished_at or 0.0) + SEEN_OFF_S:
                raise Broken(f"{row.id} is {row.status}, and its attempt {attempt.attempt} lives on")

    def _at_rest(self) -> bool:
        rows = self.world.rows.values()
        return all(row.status in TERMINAL for row in rows) and not self.world.occupied() and not self.world.living()

    def _restless(self) -> list[str]:
        return [
            f"{row.id} {row.status}#{row.attempt}"
            for row in self.world.rows.values()
            if row.status not in TERMINAL or row in self.world.occupied()
        ]

    def _look_back(self, cancelled: set[str]) -> None:
        world = self.world
        for name, row in world.rows.items():
            if row.status is Status.CANCELLED and name not in cancelled:
                raise Broken(f"{name} is cancelled, and nobody cancelled it")
            if name in cancelled and row.status is not Status.CANCELLED:
                raise Broken(f"{name} was cancelled, and is {row.status}")
            if world.events[name][-1] != "terminal":
                raise Broken(f"the last event of {name} is {world.events[name][-1]}")
