"""A server's work on a real database and a real blob folder, killed with -9 at a failpoint and begun again, at each in turn.

`PYTHONPATH=tests python tests/flow/crash_points.py FOLDER` prints a line for every point: its name, the visit, and `held`,
`LOST` or `unpassed`.
A client's journal holds what it was answered; workers are made up, and die with the server.
"""

import json
import logging
import os
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import structlog

from laws.failpoints import in_source
from laws.rows import History
from tunesmith.blobs.local import LocalBlobs
from tunesmith.core.channel import Report, Task
from tunesmith.core.errors import FileNotFound
from tunesmith.core.ids import Ids
from tunesmith.core.machine import n_cores
from tunesmith.core.settings import Settings
from tunesmith.data.folder import fingerprint
from tunesmith.domain.identity import NamedProject
from tunesmith.domain.job import CreateJob, Job
from tunesmith.domain.model import Base
from tunesmith.domain.ports import Handle
from tunesmith.domain.retention import DAY_S, Policy, Rule
from tunesmith.domain.scope import DEFAULT_ORGANIZATION, DEFAULT_PROJECT, Everywhere, Project
from tunesmith.domain.states import TERMINAL, Status
from tunesmith.services.attempts import Attempts, Fenced
from tunesmith.services.bases import Bases
from tunesmith.services.files import Files
from tunesmith.services.gc import Gc
from tunesmith.services.jobs import Jobs
from tunesmith.services.limits import Limits
from tunesmith.services.pauses import Pauses
from tunesmith.services.permissions import Permissions
from tunesmith.services.placement import Placement
from tunesmith.services.scheduler import Scheduler
from tunesmith.store import identity, jobs, metrics, models, retention
from tunesmith.store.session import Database

SCOPE = Project(DEFAULT_PROJECT, DEFAULT_ORGANIZATION)
ALL = Everywhere("the test looks at everything")
FRIEND = "proj_friend"
N_STEPS = 3
#: The worker of this attempt dies after its checkpoint without a word.
DOOMED = 2
#: One of the jobs rests before its validation, and twice while it trains.
N_RESTS = 3


class Hasty:
    """A clock that goes on by a second whenever it is looked at, so that nobody waits."""

    def __init__(self) -> None:
        self._at = time.time()

    def now(self) -> float:
        self._at += 1.0
        return self._at

    def monotonic(self) -> float:
        return self.now()


class Tomorrow(Hasty):
    """The same, two days later, when what nobody named yet is nobody's."""

    def now(self) -> float:
        return super().now() + 2 * DAY_S


class Machine:
    """Made-up workers; `tasks` by process number."""

    def __init__(self) -> None:
        self.tasks: dict[int, Task] = {}
        self.n_started = 0

    def start(self, task: Task) -> Handle:
        self.n_started += 1
        self.tasks[self.n_started] = task
        return Handle(self.n_started, os.getpid(), "boot")

    def stop(self, handle: Handle) -> None:
        if handle.start_time == os.getpid():
            self.tasks.pop(handle.pid, None)

    def find(self, job_id: str, attempt: int) -> Handle | None:
        known = [pid for pid, task in self.tasks.items() if (task.job, task.attempt) == (job_id, attempt)]
        return Handle(known[0], os.getpid(), "boot") if known else None

    def alive(self, handle: Handle) -> bool:
        return handle.start_time == os.getpid() and handle.pid in self.tasks

    def sweep(self, job_id: str, attempt: int | None = None) -> int:
        gone = [pid for pid, task in self.tasks.items() if task.job == job_id]
        for pid in gone:
            del self.tasks[pid]
        return len(gone)

    def strays(self) -> frozenset[tuple[str, int]]:
        return frozenset((task.job, task.attempt) for task in self.tasks.values())

    def outcome(self, job_id: str, attempt: int) -> None:
        return None

    def rest(self, job_id: str, attempt: int) -> list[Report]:
        return []


class Server:
    """The services of one process."""

    def __init__(self, folder: Path) -> None:
        clock, ids, settings = Hasty(), Ids(), Settings(data_dir=folder, sampler_warm=False, max_attempts=2)
        self.db = Database(f"sqlite:///{folder / 'x.db'}", clock=clock, ids=ids)
        self.db.migrate()
        self.blobs = LocalBlobs(folder / "blobs")
        self.machine: Any = Machine()
        common: dict[str, Any] = {"db": self.db, "clock": clock, "ids": ids, "settings": settings}
        self.attempts = Attempts(blobs=self.blobs, on_change=lambda: None, **common)
        limits = Limits(db=self.db, clock=clock, settings=settings)
        own: dict[str, Any] = {"db": self.db, "clock": clock, "ids": ids, "limits": limits}
        placement = Placement(attempts=self.attempts, blobs_url=self.blobs.url, socket=folder / "c.sock", **own)
        self.scheduler = Scheduler(placement=placement, attempts=self.attempts, executor=self.machine, clock=clock)
        bases = Bases(db=self.db, clock=clock, settings=settings)
        self.jobs = Jobs(bases=bases, executor=self.machine, on_change=lambda _=0.0, /: None, **own)
        self.pauses = Pauses(db=self.db, jobs=self.jobs, clock=clock, on_change=lambda _=0.0, /: None)
        self.files = Files(blobs=self.blobs, jobs=self.jobs, limits=limits, **common)
        self.permissions = Permissions(db=self.db, clock=clock, ids=ids)
        self.gc = Gc(db=self.db, blobs=self.blobs, files=self.files, clock=clock)
        self.gc_tomorrow = Gc(db=self.db, blobs=self.blobs, files=self.files, clock=Tomorrow())

    def every_job(self) -> list[Job]:
        return self.jobs.page(SCOPE, limit=100)[0]


class Journal:
    """What the client was answered, and survives the server."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.known: dict[str, Any] = dict(json.loads(line) for line in lines)

    def once(self, key: str, ask: Callable[[], Any]) -> Any:
        """Ask, unless the answer is known, and write the answer down."""
        if key not in self.known:
            self.known[key] = ask()
            with self._path.open("a") as file:
                file.write(json.dumps([key, self.known[key]]) + "\n")
        return self.known[key]


def furnish(folder: Path) -> None:
    """Lay out a database with a base."""
    base_folder = folder / "base"
    base_folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (base_folder / name).write_bytes(b"{}")
    server = Server(folder)
    base = Base(
        name="nano", kind="folder", source="", path=str(base_folder), created_at=0.0, architecture="X", context_length=512,
        n_parameters=1, weights_bytes=1, pins={"weights": "w"}, fingerprint=fingerprint(base_folder),
    )  # fmt: skip
    with server.db.begin() as tx:
        models.add_base(tx, ALL, base)
        identity.add_project(tx, ALL, NamedProject(FRIEND, DEFAULT_ORGANIZATION, "friend", 0.0))
    server.db.close()


def play(server: Server, journal: Journal) -> None:
    """Upload, create four jobs, cancel one, pause one, see two through, one fail, delete, share, let go; each asked once."""
    rows = [b'{"messages": []}\n']
    upload = {"filename": "t.jsonl", "purpose": "fine-tune", "chunks": rows, "expires_after_s": None}
    file = journal.once("file", lambda: server.files.create(SCOPE, **upload).id)
    asked = CreateJob(model="nano", training_file=file, seed=1)
    journal.once("job", lambda: server.jobs.create(SCOPE, asked).id)
    dropped = journal.once("dropped", lambda: server.jobs.create(SCOPE, asked).id)
    journal.once("cancelled", lambda: str(server.jobs.cancel(SCOPE, dropped).status))
    halted = journal.once("halted", lambda: server.jobs.create(SCOPE, asked).id)
    journal.once("paused", lambda: str(server.pauses.ask(SCOPE, halted).status))
    journal.once("deadly", lambda: server.jobs.create(SCOPE, asked).id)
    for _ in range(200):
        server.scheduler.tick()
        for pid, task in list(server.machine.tasks.items()):
            work(server, journal, pid, task)
        rests = server.jobs.get(SCOPE, halted)
        if rests.status is Status.PAUSED:
            journal.once(f"resumed-{rests.version}", lambda: str(server.pauses.resume(SCOPE, halted).status))
        if all(job.status in TERMINAL and job.released_at is not None for job in server.every_job() if job.attempt):
            break
    journal.once("deleting", lambda: True)
    journal.once("deleted", lambda: delete(server, file))
    model = server.jobs.get(SCOPE, journal.known["job"]).fine_tuned_model or ""
    shared = journal.once("shared", lambda: server.permissions.create(SCOPE, model, [FRIEND])[0].id)
    journal.once("unsharing", lambda: True)
    journal.once("unshared", lambda: unshare(server, model, shared))
    journal.once("policy", lambda: server.gc.put(SCOPE, Policy(SCOPE.project_id, checkpoints=Rule("last"))).project_id)
    journal.once("collecting", lambda: True)
    journal.once("collected", lambda: len(server.gc.collect()))


def delete(server: Server, file: str) -> bool:
    try:
        server.files.delete(SCOPE, file)
    except FileNotFound:
        assert server.files.sweep() >= 0
    return True


def unshare(server: Server, model: str, permission: str) -> bool:
    if server.permissions.page(SCOPE, model, project_id=None, after=None, limit=1, order="asc")[0]:
        server.permissions.delete(SCOPE, model, permission)
    return True


def work(server: Server, journal: Journal, pid: int, task: Task) -> None:
    """Report what a task has to say next, one message at a time; then leave."""
    try:
        for number, reports in enumerate(messages(server, task)):
            if (task.attempt == DOOMED and number == 3) or (task.kind == "train" and task.job == journal.known["deadly"]):
                break
            if number == 2 and task.job == journal.known["halted"] and n_rests(journal) < N_RESTS:
                pause(server, journal, task)
                break
            server.attempts.report(task.job, task.attempt, task.token, reports)
            for report in reports:
                journal.once(f"{task.job} {report.idempotency_key}", lambda: True)
    except Fenced:
        pass
    server.machine.tasks.pop(pid, None)


def n_rests(journal: Journal) -> int:
    return sum(key.startswith("resumed-") for key in journal.known)


def pause(server: Server, journal: Journal, task: Task) -> None:
    """Pause a job under its worker, which tells its checkpoint at the first time and dies on the way at the next."""
    asked = server.pauses.ask(SCOPE, task.job)
    journal.once(f"{task.job} pause-{asked.version}", lambda: True)
    if n_rests(journal) == 1:
        key = f"{task.spec['output_key']}/checkpoints/000001"
        server.blobs.put(f"{key}/MANIFEST.json", [b"{}"])
        data = {"step": 1, "key": key, "sha256": "0" * 64, "metrics": {"step": 1}}
        said = Report("paused", task.job, task.attempt, f"paused-{task.attempt}", 1.0, data)
        server.attempts.report(task.job, task.attempt, task.token, [said])
        journal.once(f"{task.job} ckpt-1", lambda: True)


def messages(server: Server, task: Task) -> list[list[Report]]:
    def report(kind: str, key: str, /, **data: Any) -> Report:
        return Report(kind, task.job, task.attempt, key, 1.0, data)

    def saved(step: int) -> dict[str, Any]:
        key = f"{task.spec['output_key']}/checkpoints/{step:06d}"
        server.blobs.put(f"{key}/MANIFEST.json", [b"{}"])
        return {"step": step, "key": key, "sha256": "0" * 64, "metrics": {"step": step}}

    if task.kind == "validate":
        return [[report("validated", "validated", hyperparameters={"n_epochs": 1})]]
    resumed = task.spec["resume_key"]
    first = 0 if resumed is None else int(resumed[-6:])
    said = [[report("started", f"started-{task.attempt}", step=first, total_steps=N_STEPS)]]
    for step in range(first + 1, N_STEPS + 1):
        said.append([report("metrics", f"s{step}", step=step, total_steps=N_STEPS, train_loss=1.0)])
        if step == 1:
            said.append([report("checkpoint", "ckpt-1", **saved(1))])
    said.append([report("finished", "terminal", trained_tokens=5, **saved(N_STEPS))])
    return said


def check_answers(server: Server, known: dict[str, Any]) -> None:
    """Assert that what was answered is still so."""
    if "file" in known and "deleting" not in known:
        file, stream = server.files.open(SCOPE, known["file"])
        with stream:
            assert len(stream.read()) == file.bytes
    for name in {"job", "dropped", "halted", "deadly"} & known.keys():
        server.jobs.get(SCOPE, known[name])
    if "cancelled" in known:
        assert server.jobs.get(SCOPE, known["dropped"]).status is Status.CANCELLED
    if "shared" in known and "unsharing" not in known:
        with server.db.read() as tx:
            assert models.tuned(tx, Project(FRIEND, DEFAULT_ORGANIZATION)) != []
    for key in known:
        job, _, said = key.partition(" ")
        if said:
            assert said in {event.idempotency_key for event in server.jobs.events(SCOPE, job, limit=100)[0]}, key


def check_end(server: Server, known: dict[str, Any]) -> None:
    """Assert that every job came to its own end, whole."""
    History(server.db).check()
    ends = {"job": Status.SUCCEEDED, "halted": Status.SUCCEEDED, "dropped": Status.CANCELLED, "deadly": Status.FAILED}
    assert {name: server.jobs.get(SCOPE, known[name]).status for name in ends} == ends
    for job in server.every_job():
        told = server.jobs.events(SCOPE, job.id, limit=100)[0][::-1]
        with server.db.read() as tx:
            rows = metrics.all(tx, SCOPE, job.id)
            made = {model.name for model in models.tuned(tx, SCOPE) if model.job_id == job.id}
            assert not jobs.occupied(tx, ALL)
        if job.status is Status.CANCELLED:
            assert told[-1].message == "The job was cancelled"
            continue
        if job.status is Status.FAILED:
            assert job.error is not None
            assert job.error["code"] == "worker_lost"
            continue
        assert told[-1].message == "The job has successfully completed"
        assert [step for step, _ in rows] == [1, 2, 3]
        listed = server.jobs.checkpoints(SCOPE, job.id)[0]
        assert [checkpoint.step for checkpoint in listed] == [3]
        assert made == {checkpoint.model_name for checkpoint in listed}
        assert all(server.blobs.keys(checkpoint.key) for checkpoint in listed)
        _, stream = server.files.open(SCOPE, job.result_files[0])
        with stream:
            assert len(stream.read().splitlines()) == N_STEPS + 1
    assert server.blobs.keys(f"files/{known['file']}") == []
    server.gc_tomorrow.collect()
    with server.db.read() as tx:
        named = retention.named(tx, ALL)
    for prefix in ("files", "jobs"):
        for found in server.blobs.found(prefix):
            folder = "/".join(found.key.split("/")[:6])
            assert found.key in named.files or folder in named.checkpoints, found.key


def in_a_process(act: Callable[[], None], failpoints: str = "") -> int:
    """Run something in a fork of this process and return its wait status."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ["TUNESMITH_FAILPOINTS"] = failpoints
            act()
            code = 0
        except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def whole(folder: Path) -> None:
    """Play the story to its end from wherever the folder stands."""
    server, journal = Server(folder), Journal(folder / "journal")
    History(server.db).check()
    check_answers(server, journal.known)
    play(server, journal)
    check_answers(server, journal.known)
    check_end(server, journal.known)


def main(folder: Path) -> int:
    """Kill after every commit, and at the first visit of every other point; return 1 if anything was lost."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    furnish(folder / "empty")
    shutil.copytree(folder / "empty", folder / "count")
    assert in_a_process(lambda: whole(folder / "count"), f"*=note:{folder / 'visits'}") == 0
    visits = Counter((folder / "visits").read_text().split())
    points: list[tuple[str, int]] = []
    for name in sorted(in_source("services", "store", "blobs")):
        if visits[name] == 0:
            sys.stdout.write(f"{name} 0 unpassed\n")
        points += [
            (name, visit) for visit in range(1, 1 + (visits[name] if name == "store.committed" else min(visits[name], 1)))
        ]
    with ProcessPoolExecutor(n_cores(), mp_context=get_context("fork")) as pool:
        killed = list(pool.map(held, [folder] * len(points), points))
    for (name, visit), whole_again in zip(points, killed, strict=True):
        sys.stdout.write(f"{name} {visit} {'held' if whole_again else 'LOST'}\n")
    return int(not all(killed))


def held(folder: Path, point: tuple[str, int]) -> bool:
    """Kill the story at a visit of a point, play it again to its end, and say whether nothing was lost."""
    name, visit = point
    place = folder / f"{name}-{visit}"
    shutil.copytree(folder / "empty", place)
    killed = in_a_process(lambda: whole(place), f"{name}=kill@{visit}")
    return os.WIFSIGNALED(killed) and in_a_process(lambda: whole(place)) == 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
