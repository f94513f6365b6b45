"""Clients and a nemesis at once: whatever is killed, stopped, filled or set back, what was answered for stays true.

Clients create, cancel, pause and resume and write down each answer; an observer writes down what it reads. The nemesis kills
with -9 and stops the server, supervisors, trainers and the database, fills the disk and steps the clock. Then it
rests, the jobs end, and the history is checked. `TUNESMITH_TEST_NEMESIS_S` makes it longer, `TUNESMITH_TEST_SEED` another.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest

from tunesmith.supervisor import tree

pytestmark = pytest.mark.slow

LENGTH_S = float(os.environ.get("TUNESMITH_TEST_NEMESIS_S", "12"))
SEED = int(os.environ.get("TUNESMITH_TEST_SEED", "1"))
N_EPOCHS = 2
N_STEPS = 20
#: How long somebody is stopped, or the disk full.
SPELL_S = 1.5
TERMINAL = ("succeeded", "failed", "cancelled")
#: Replaces the wall clock of every process by one that a file sets forward or back.
CLOCK = """
import time
real = time.time
def stepped():
    try:
        with open({step_file!r}) as file:
            return real() + float(file.read() or 0)
    except (OSError, ValueError):
        return real()
time.time = stepped
"""


@dataclass(frozen=True)
class Told:
    """An acknowledged call or a reading, and the moments (monotonic) between which the server made up its answer."""

    job: str
    what: str
    status: str
    asked: float
    answered: float


@dataclass
class History:
    """What clients were answered and what an observer read, by job, in the order in which the answers came."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    lines: list["Told"] = field(default_factory=list["Told"])
    #: Events that were shown: id to text, by job.
    shown: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    refused: list[str] = field(default_factory=list[str])
    unexpected: list[str] = field(default_factory=list[str])

    def add(self, job: str, what: str, status: str, *, asked: float) -> None:
        with self.lock:
            self.lines.append(Told(job, what, status, asked, time.monotonic()))

    def jobs(self) -> list[str]:
        with self.lock:
            return list(dict.fromkeys(line.job for line in self.lines))


class Client(threading.Thread):
    """One user: does something to a job, over and over; an answer that never came is no answer."""

    def __init__(self, world: "World", seed: int) -> None:
        super().__init__(daemon=True)
        self._world, self._chance = world, random.Random(seed)

    def run(self) -> None:
        while not self._world.over.wait(self._chance.uniform(0.1, 0.6)):
            try:
                with self._world.client() as client:
                    self._act(client)
            except openai.BadRequestError as error:
                self._world.history.refused.append(str(error))
            except openai.APIConnectionError:
                continue
            except openai.APIStatusError as error:
                # a full disk and a database that is away are told as such, and may be tried again
                if error.status_code not in (503, 507):
                    asked = f"{error.request.method} {error.request.url.path}"
                    self._world.history.unexpected.append(f"{asked}: {error.status_code} {error.response.text}")

    def _act(self, client: openai.OpenAI) -> None:
        history, jobs = self._world.history, client.fine_tuning.jobs
        known = history.jobs()
        unfinished = [job.id for job in jobs.list(limit=100).data if job.status not in TERMINAL]
        action = self._chance.choice(("create", "cancel", "pause", "resume", "resume"))
        if action == "create" or not known:
            if len(unfinished) < 4:
                history.add(self._world.create(client), "created", "", asked=time.monotonic())
            return
        job, asked = self._chance.choice(known), time.monotonic()
        answer = getattr(jobs, action)(job)
        history.add(job, action, answer.status, asked=asked)


class Observer(threading.Thread):
    """Reads every job and its newest events all the time."""

    def __init__(self, world: "World") -> None:
        super().__init__(daemon=True)
        self._world = world

    def run(self) -> None:
        while not self._world.over.wait(0.1):
            with contextlib.suppress(openai.APIError), self._world.client() as client:
                for job in self._world.history.jobs():
                    asked = time.monotonic()
                    self._world.history.add(job, "read", client.fine_tuning.jobs.retrieve(job).status, asked=asked)
                    newest = client.fine_tuning.jobs.list_events(job, limit=20).data
                    shown = self._world.history.shown.setdefault(job, {})
                    shown.update({event.id: event.message for event in reversed(newest)})


@dataclass
class World:
    """A server, whoever uses it, and what befalls it."""

    server: Any
    file: str
    cluster: Any
    step_file: Path
    disk: Path | None
    history: History = field(default_factory=History)
    over: threading.Event = field(default_factory=threading.Event)
    done: list[str] = field(default_factory=list[str])

    def client(self) -> openai.OpenAI:
        return self.server.client.with_options(timeout=20)

    def create(self, client: openai.OpenAI) -> str:
        chosen: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": N_EPOCHS, "batch_size": 2}}}
        job = client.fine_tuning.jobs.create(model="tiny", training_file=self.file, seed=7, method=chosen).id
        self.server.jobs.append(job)
        return job

    def processes(self, kind: str) -> list[int]:
        pids = [process.pid for job in self.history.jobs() for process in tree.tagged(job)]
        named = {pid: _command(pid) for pid in pids}
        return [pid for pid, command in named.items() if (b"tunesmith.supervisor" in command) == (kind == "supervisor")]

    def kill_server(self) -> None:
        self.server.kill()
        self.server.start()

    def stop_server(self) -> None:
        self._stop([self.server.process.pid])

    def kill(self, kind: str, chance: random.Random) -> None:
        if found := self.processes(kind):
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(found), signal.SIGKILL)

    def stop(self, kind: str, chance: random.Random) -> None:
        if found := self.processes(kind):
            self._stop([chance.choice(found)])

    def _stop(self, pids: list[int]) -> None:
        with contextlib.suppress(ProcessLookupError):
            for number in (signal.SIGSTOP, signal.SIGCONT):
                for pid in pids:
                    os.kill(pid, number)
                time.sleep(SPELL_S)

    def kill_database(self) -> None:
        killed = self.cluster.signal(signal.SIGKILL)
        while any(tree.start_time(pid) is not None for pid in killed):  # it starts when its shared memory is free
            time.sleep(0.02)
        # the dead may still have a number here, and the locks name it
        for lock in (self.cluster.folder / "data" / "postmaster.pid", self.cluster.folder / ".s.PGSQL.5432.lock"):
            lock.unlink(missing_ok=True)
        self.cluster.start()

    def stop_database(self) -> None:
        self.cluster.signal(signal.SIGSTOP)
        time.sleep(SPELL_S)
        self.cluster.signal(signal.SIGCONT)

    def fill_disk(self) -> None:
        assert self.disk is not None
        filler = self.disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 65536)
        time.sleep(SPELL_S)
        filler.unlink()

    def step_clock(self, chance: random.Random) -> None:
        self.step_file.write_text(str(chance.choice((-3600.0, -5.0, 0.0, 5.0, 3600.0))))

    def nemesis(self, chance: random.Random) -> None:
        deeds: dict[str, Callable[[], None]] = {
            "kill server": self.kill_server,
            "stop server": self.stop_server,
            "kill supervisor": lambda: self.kill("supervisor", chance),
            "kill trainer": lambda: self.kill("trainer", chance),
            "stop supervisor": lambda: self.stop("supervisor", chance),
            "stop trainer": lambda: self.stop("trainer", chance),
            "step clock": lambda: self.step_clock(chance),
        }
        if self.cluster is not None:
            deeds |= {"kill database": self.kill_database, "stop database": self.stop_database}
        if self.disk is not None:
            deeds["full disk"] = self.fill_disk
        end = time.monotonic() + LENGTH_S
        order: list[str] = []
        while time.monotonic() < end or set(self.done) != deeds.keys():
            order = order or chance.sample(list(deeds), len(deeds))
            name = order.pop()
            deeds[name]()
            self.done.append(name)
            time.sleep(chance.uniform(0.2, 1.0))
        self.step_file.write_text("0")

    def rest(self, eventually: Callable[..., Any]) -> None:
        """Let every job come to its end."""
        for job in self.history.jobs():
            if self.server.status(job) == "paused" or self._desired_pause(job):
                with self.client() as client, contextlib.suppress(openai.BadRequestError):
                    client.fine_tuning.jobs.resume(job)
            eventually(lambda job=job: self._ended(job), f"{job} ends", within_s=240)

    def _desired_pause(self, job: str) -> bool:
        return self.server.texts(job)[-1:] == ["Pause requested"]

    def _ended(self, job: str) -> bool:
        status = self.server.status(job)
        if status == "paused":
            with self.client() as client:
                client.fine_tuning.jobs.resume(job)
        return status in TERMINAL


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def adapter(server: Any, job: str) -> bytes:
    """Return the last adapter of a job: an attempt that died before it was heard has left the same one."""
    paths = (server.data_dir / "blobs" / "jobs" / job).glob(
        f"attempts/*/checkpoints/{N_STEPS:06d}/adapter_model.safetensors"
    )
    (found,) = {path.read_bytes() for path in paths}
    return found


def check(world: World, straight: str) -> None:
    """Assert that nothing that anybody was told has become untrue."""
    history, server = world.history, world.server
    assert history.unexpected == []
    for job in history.jobs():
        told = [line for line in history.lines if line.job == job]
        ends = [line for line in told if line.status in TERMINAL]
        assert len({end.status for end in ends}) <= 1, (job, told)
        # two that ask at once may be told in either order: only who asks after an end was told must be told the end
        first = min((end.answered for end in ends), default=float("inf"))
        assert {line.status for line in told if line.asked > first} <= set(TERMINAL), (job, told)
        final = server.job(job)
        if ends:
            assert final.status == ends[0].status
        if any((line.what, line.status) == ("cancel", "cancelled") for line in told):
            assert final.status == "cancelled"
        events = server.events(job)
        ids = [event.id for event in events]
        assert len(ids) == len(set(ids))
        assert history.shown.get(job, {}).items() <= {event.id: event.message for event in events}.items()
        steps = server.steps(job)
        assert steps == sorted(set(steps)), (job, steps)
        if final.status == "failed":
            assert "full disk" in world.done, final.error
            assert final.error.code in ("disk_full", "server_error", "worker_lost"), final.error
        if final.status == "succeeded":
            assert steps == list(range(1, N_STEPS + 1))
            assert server.results(job) == server.results(straight)
            assert adapter(server, job) == adapter(server, straight), "to the bit"
        assert tree.tagged(job) == [], (job, final.status)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of its own, small enough to be filled; None where this user may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        yield None
        return
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("backend", ["sqlite", pytest.param("postgresql", marks=pytest.mark.pg)])
def test_nothing_that_was_answered_becomes_untrue(
    backend: str,
    furnish: Callable[..., Any],
    tiny_base: Path,
    small_disk: Path | None,
    tmp_path: Path,
    request: Any,
    eventually: Any,
) -> None:
    step_file, path = tmp_path / "step", tmp_path / "path"
    step_file.write_text("0")
    path.mkdir()
    (path / "sitecustomize.py").write_text(CLOCK.format(step_file=str(step_file)))
    settings: dict[str, Any] = {"training_slots": 2, "max_attempts": 100}
    cluster = None
    if backend == "postgresql":
        cluster = request.getfixturevalue("own_cluster")
        settings["database_url"] = cluster.url("postgres")
    server = furnish((small_disk or tmp_path) / "data", **settings)
    server.failpoints = "train.step=sleep:0.1"
    server.more = {"PYTHONPATH": f"{path}:{os.environ.get('PYTHONPATH', '')}"}
    server.start()
    if cluster is not None:
        server.register(tiny_base)
    file = server.upload()
    straight = server.create(file, n_epochs=N_EPOCHS)
    server.reaches(straight, "succeeded")
    world = World(server, file, cluster, step_file, small_disk)
    threads = [Observer(world), *(Client(world, SEED + n) for n in range(2))]
    for thread in threads:
        thread.start()
    world.nemesis(random.Random(SEED))
    world.over.set()
    for thread in threads:
        thread.join()
    world.rest(eventually)
    eventually(lambda: not any(tree.tagged(job) for job in server.jobs), "every tree is gone", within_s=30)
    check(world, straight)
