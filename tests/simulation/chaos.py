"""One seed's story: whatever can happen happens in an order that the seed draws; then peace, in which every job must end."""

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from simulation.peace import Peace
from simulation.people import ask_to_pause, resume, work
from simulation.server import Server, Step
from simulation.world import HEARTBEAT_S, Attempt, Broken, Fenced, World
from tunesmith.domain import reconcile
from tunesmith.domain.ports import Outcome
from tunesmith.domain.states import Desired, Status

N_DEEDS: Final = 200
MOST_JOBS: Final = 5


@dataclass(frozen=True)
class Failure:
    """A seed in which a law was broken."""

    seed: int
    reason: str
    trace: str

    def __str__(self) -> str:
        return f"{self.trace}\nseed {self.seed}: {self.reason}"


def run(seed: int, step: Step = reconcile.step) -> Failure | None:
    """Play a seed; of one that fails the story is told by playing it again."""
    try:
        Story(seed, step).play()
    except Broken as broken:
        return Failure(seed, str(broken), story(seed, step))
    return None


def story(seed: int, step: Step = reconcile.step) -> str:
    """Return what happens in a seed, as far as it comes."""
    played = Story(seed, step)
    played.world.trace = trace = []
    with contextlib.suppress(Broken):
        played.play()
    return "\n".join(trace)


class Story:
    """Servers, clients, workers, a network and bad luck around one world."""

    def __init__(self, seed: int, step: Step) -> None:
        self.random = random.Random(seed)
        self._step = step
        alone = self.random.random() < 0.7
        self.world = World(alone=alone)
        #: One of two servers: on another machine or on the same, which is up beside the first or follows it.
        self.places = [0] if alone else self.random.choice([[0, 0], [0, 1]])
        self.servers = [Server(self.world, machine, step) for machine in self.places]
        #: Requests that hang in a server: taken long after their sender has sent them anew.
        self.hung: list[tuple[Server, Attempt, list[tuple[str, int]]]] = []
        self.cancelled: set[str] = set()
        self.deeds: list[Callable[[], None]] = []
        self.weights: list[int] = []
        for deed, weight in self._deeds():
            self.deeds.append(deed)
            self.weights.append(weight)

    def _deeds(self) -> Iterator[tuple[Callable[[], None], int]]:
        yield self.a_server_goes_on, 60
        yield self.a_server_ticks, 25
        yield self.a_worker_works, 30
        yield self.a_supervisor_sends, 30
        yield self.a_little_time_passes, 20
        yield self.much_time_passes, 2
        yield self.the_clock_is_set, 1
        yield self.create, 4
        yield self.cancel, 3
        yield self.pause, 4
        yield self.resume, 5
        yield self.a_server_crashes, 3
        yield self.a_server_crashes_between_a_start_and_its_row, 1
        yield self.a_server_starts, 5
        yield self.a_hung_request_is_taken, 4
        yield self.a_worker_is_killed, 3
        yield self.a_supervisor_is_killed, 3
        yield self.a_supervisor_is_stopped, 2
        yield self.a_supervisor_wakes, 1
        yield self.a_worker_hangs, 1
        yield self.a_machine_reboots, 1
        yield self.something_is_refused, 3
        yield self.a_file_is_deleted, 1

    def play(self) -> None:
        for _ in range(self.random.randint(1, 3)):
            self.create()
        for deed in self.random.choices(self.deeds, self.weights, k=N_DEEDS):
            deed()
        Peace(self.world, self.last_server(), self.send).reign(self.cancelled)

    def last_server(self) -> Server:
        """Leave one server, up, to which everything that hung has come."""
        for server in self.servers[1:]:
            self.crash(server)
        if not self.servers[0].up:
            self.a_server_starts()
        self.servers[0].n_refusals = 0
        while self.hung:
            self.a_hung_request_is_taken()
        return self.servers[0]

    # servers

    def crash(self, server: Server) -> None:
        server.crash()
        self.hung = [request for request in self.hung if request[0] is not server]

    def up(self) -> Server | None:
        servers = [server for server in self.servers if server.up]
        return self.random.choice(servers) if servers else None

    def a_server_goes_on(self) -> None:
        if server := self.up():
            server.go_on()

    def a_server_ticks(self) -> None:
        if server := self.up():
            server.whole_tick()

    def a_server_crashes(self) -> None:
        if server := self.up():
            self.crash(server)

    def a_server_crashes_between_a_start_and_its_row(self) -> None:
        server = self.up()
        while server is not None and server.go_on():
            if any(attempt.filed and self.world.rows[attempt.job].handle is None for attempt in self.world.living()):
                self.crash(server)
                return

    def a_server_starts(self) -> None:
        for number, server in enumerate(self.servers):
            if not server.up:
                self.servers[number] = Server(self.world, server.machine, self._step)
                self.world.say("server", number, "starts")
                return

    def something_is_refused(self) -> None:
        if server := self.up():
            server.n_refusals = 1

    # attempts

    def attempt(self) -> Attempt | None:
        living = self.world.living()
        return self.random.choice(living) if living else None

    def a_worker_works(self) -> None:
        attempt = self.attempt()
        if attempt is not None and attempt.worker and not attempt.stuck:
            work(self.world, attempt, failing=self.random.random() < 0.03)

    def a_supervisor_sends(self) -> None:
        attempt = self.attempt()
        if attempt is None or not attempt.supervisor or attempt.stopped:
            return
        if attempt.worker or self.random.random() < 0.7:
            self.send(attempt, self.up(), fate=self.random.random())
        else:  # it does not wait any longer for a server that does not answer
            self.world.say("leaves", attempt.job, attempt.attempt)
            attempt.die(attempt.outcome)

    def send(self, attempt: Attempt, server: Server | None, fate: float = 1.0) -> None:
        """Send what was not sent, and hear what is wanted; at a bad fate the answer is lost, or the request hangs."""
        if server is None:
            return
        batch = attempt.spool[attempt.n_sent : attempt.n_sent + 1 + int(fate * 8) % 3]
        try:
            self.world.authorise(attempt)
            if fate < 0.08:
                self.hung.append((server, attempt, batch))
                return
            desired = self.world.take(attempt.job, attempt.attempt, batch)
        except Fenced:
            self.world.say("refused", attempt.job, attempt.attempt)
            if attempt.supervisor and not attempt.stopped:
                attempt.die(Outcome(None, 9, killed=True, cause="refused"))
            return
        if fate > 0.16:
            attempt.n_sent += len(batch)
            attempt.heard_at = self.world.now
            attempt.pausing = desired == "pause"

    def a_hung_request_is_taken(self) -> None:
        if self.hung:
            _, attempt, batch = self.hung.pop(self.random.randrange(len(self.hung)))
            self.world.say("late", attempt.job, attempt.attempt, batch)
            with contextlib.suppress(Fenced):
                self.world.take(attempt.job, attempt.attempt, batch)

    def a_worker_is_killed(self) -> None:
        attempt = self.attempt()
        if attempt is not None and attempt.worker and attempt.supervisor:
            self.world.say("kill -9 worker", attempt.job, attempt.attempt)
            self.world.fault(attempt)
            attempt.worker = False
            attempt.outcome = Outcome(None, 9, out_of_memory=self.random.random() < 0.2)

    def a_supervisor_is_killed(self) -> None:
        attempt = self.attempt()
        if attempt is not None and attempt.supervisor:
            self.world.say("kill -9 supervisor", attempt.job, attempt.attempt)
            self.world.fault(attempt)
            attempt.die(None)
            attempt.orphan = self.random.random() < 0.4

    def a_supervisor_is_stopped(self) -> None:
        if attempt := self.attempt():
            attempt.stopped = True

    def a_supervisor_wakes(self) -> None:
        if attempt := self.attempt():
            attempt.stopped = False

    def a_worker_hangs(self) -> None:
        if attempt := self.attempt():
            attempt.stuck = True

    def a_machine_reboots(self) -> None:
        machine = self.random.choice(self.places)
        self.world.say("reboot", machine)
        self.world.boots[machine] += 2
        for attempt in self.world.living():
            if attempt.machine == machine:
                self.world.fault(attempt)
                attempt.die(attempt.outcome)
        for server in self.servers:
            if server.up and server.machine == machine:
                self.crash(server)

    # time

    def a_little_time_passes(self) -> None:
        self._time(self.random.uniform(0.01, 1.5))

    def much_time_passes(self) -> None:
        self._time(self.random.uniform(2.0, 40.0))

    def the_clock_is_set(self) -> None:
        self.world.skew = self.random.choice([-3600.0, -5.0, 0.0, 5.0, 3600.0])
        self.world.say("the clock is set", f"{self.world.skew:+.0f} s")

    def _time(self, seconds: float) -> None:
        """Let time pass; supervisors that can reach a server have sent their heartbeats meanwhile."""
        server = self.up()
        if server is not None and seconds >= HEARTBEAT_S:
            for attempt in self.world.living():
                if attempt.supervisor and not attempt.stopped:
                    self.send(attempt, server)
        self.world.pass_time(seconds)

    # clients

    def job(self) -> str | None:
        return self.random.choice(list(self.world.rows)) if self.world.rows and self.up() else None

    def create(self) -> None:
        if len(self.world.rows) < MOST_JOBS:
            name = self.world.create(validated=self.random.random() < 0.6)
            if self.random.random() < 0.1:
                self.world.deadly.add(name)

    def cancel(self) -> None:
        name = self.job()
        if name is None:
            return
        ended = self.world.end(name, Status.CANCELLED, None, fence=True, desired=Desired.CANCEL)
        if ended is not None:
            self.cancelled.add(name)
            if ended.handle is not None and self.random.random() < 0.5:  # or the server dies before it can
                self.world.stop(self.world.pids[ended.handle["pid"]].handle)

    def pause(self) -> None:
        if name := self.job():
            ask_to_pause(self.world, name)

    def resume(self) -> None:
        if name := self.job():
            resume(self.world, name)

    def a_file_is_deleted(self) -> None:
        name = self.job()
        if name is not None and self.world.rows[name].started_at is None:
            self.world.robbed.add(name)
