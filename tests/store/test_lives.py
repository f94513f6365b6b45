"""The services on a real database, called in any order that Hypothesis finds: no call breaks a law of the rows.

Attempts are made up and outlive the server, as real ones do. `TUNESMITH_TEST_PROFILE=soak` plays longer and at random.
"""

import hmac
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import delete
from structlog.testing import capture_logs

from laws.rows import History
from laws.thorough import some
from tunesmith.blobs.local import LocalBlobs
from tunesmith.core.channel import Report, Task
from tunesmith.core.errors import StateConflict
from tunesmith.core.ids import Ids
from tunesmith.core.settings import Settings
from tunesmith.data.folder import fingerprint
from tunesmith.domain import events as wording
from tunesmith.domain.file import File
from tunesmith.domain.job import CreateJob, Job
from tunesmith.domain.model import Base
from tunesmith.domain.ports import Handle, Outcome
from tunesmith.domain.scope import DEFAULT_ORGANIZATION, DEFAULT_PROJECT, Everywhere, Project
from tunesmith.domain.states import TERMINAL, Desired, Status
from tunesmith.services.attempts import Attempts, Fenced, WrongToken
from tunesmith.services.bases import Bases
from tunesmith.services.jobs import Jobs
from tunesmith.services.limits import Limits
from tunesmith.services.pauses import Pauses
from tunesmith.services.placement import Placement
from tunesmith.services.scheduler import Scheduler
from tunesmith.store import files, models, outbox
from tunesmith.store.session import Database
from tunesmith.store.tables import metadata

SCOPE = Project(DEFAULT_PROJECT, DEFAULT_ORGANIZATION)
N_STEPS = 3
MOST_JOBS = 4
SLOTS = 2
N_EXAMPLES, N_CALLS = (100, 60) if settings.default.max_examples > 50 else (15, 30)
which = st.integers(0, 99)


class Watch:
    """A clock that goes only when it is told to."""

    at = 1_700_000_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@dataclass(eq=False)
class Attempt:
    """A made-up supervisor with its worker."""

    task: Task
    alive: bool = True
    #: A process that outlived its supervisor.
    orphan: bool = False
    pausing: bool = False
    started: bool = False
    step: int = 0
    said: list[Report] = field(default_factory=list[Report])
    unsent: list[Report] = field(default_factory=list[Report])
    outcome: Outcome | None = None

    def end(self, outcome: Outcome | None) -> None:
        self.alive, self.orphan, self.outcome = False, False, outcome

    def next(self) -> Report:
        """Return what the worker says next."""
        if self.task.kind == "validate":
            return self._say("validated", "validated", hyperparameters={"n_epochs": 1})
        resumed = self.task.spec["resume_key"]
        self.step = self.step or (0 if resumed is None else int(resumed[-6:]))
        if not self.started:
            self.started = True
            return self._say("started", f"started-{self.task.attempt}", step=self.step, total_steps=N_STEPS)
        if self.pausing:
            return self._say("paused", f"paused-{self.task.attempt}", **self._saved())
        if self.step == N_STEPS:
            return self._say("finished", "terminal", trained_tokens=5, **self._saved())
        if self.said and self.said[-1].kind == "metrics":
            return self._say("checkpoint", f"ckpt-{self.step}", **self._saved())
        self.step += 1
        return self._say("metrics", f"s{self.step}", step=self.step, total_steps=N_STEPS, train_loss=1.0)

    def _say(self, kind: str, key: str, /, **data: Any) -> Report:
        report = Report(kind, self.task.job, self.task.attempt, key, 1.0, data)
        self.said.append(report)
        return report

    def _saved(self) -> dict[str, Any]:
        key = f"{self.task.spec['output_key']}/checkpoints/{self.step:06d}"
        return {"step": self.step, "key": key, "sha256": "0" * 64, "metrics": {"step": self.step}}


class Machine:
    """The executor's port over made-up attempts, by process number."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    def _of(self, job_id: str, attempt: int) -> Attempt | None:
        return next((each for each in self.attempts if (each.task.job, each.task.attempt) == (job_id, attempt)), None)

    def start(self, task: Task) -> Handle:
        assert not any(each.alive and each.task.job == task.job for each in self.attempts), "two attempts of a job live"
        assert not any(each.orphan and each.task.job == task.job for each in self.attempts), "an orphan lives on"
        self.attempts.append(Attempt(task))
        return Handle(len(self.attempts), 1, "boot")

    def stop(self, handle: Handle) -> None:
        attempt = self.attempts[handle.pid - 1]
        if attempt.alive:
            attempt.end(Outcome(None, 9, killed=True))

    def find(self, job_id: str, attempt: int) -> Handle | None:
        known = self._of(job_id, attempt)
        return None if known is None else Handle(self.attempts.index(known) + 1, 1, "boot")

    def alive(self, handle: Handle) -> bool:
        return self.attempts[handle.pid - 1].alive

    def sweep(self, job_id: str, attempt: int | None = None) -> int:
        found = [each for each in self.attempts if each.task.job == job_id and (each.alive or each.orphan)]
        for each in found:
            each.end(each.outcome)
        return len(found)

    def strays(self) -> frozenset[tuple[str, int]]:
        return frozenset((each.task.job, each.task.attempt) for each in self.attempts if each.alive or each.orphan)

    def outcome(self, job_id: str, attempt: int) -> Outcome | None:
        found = self._of(job_id, attempt)
        return found.outcome if found is not None else None

    def rest(self, job_id: str, attempt: int) -> list[Report]:
        found = self._of(job_id, attempt)
        return found.unsent if found is not None else []


class Lives(RuleBasedStateMachine):
    """Clients, attempts, a clock and restarts around the services."""

    def __init__(self, db: Database, watch: Watch, folder: Path) -> None:
        super().__init__()
        self.db, self.watch, self.folder = db, watch, folder
        self.machine = Machine()
        self.history = History(db)
        self.ids = Ids(random.Random(5))
        self.names: list[str] = []
        with db.begin() as tx:
            for table in reversed(metadata.sorted_tables):
                tx.execute(delete(table))
            files.add(tx, SCOPE, File("file-t", *_OWNER, 0.0, "t.jsonl", "fine-tune", 1, "s", "files/file-t"))
            models.add_base(tx, Everywhere("a test's base"), _base(folder / "base"))
        self.restart()

    @rule()
    def restart(self) -> None:
        """Begin with nothing in memory."""
        chosen = Settings(data_dir=self.folder, training_slots=SLOTS, validation_slots=1, max_attempts=3)
        common: dict[str, Any] = {"db": self.db, "clock": self.watch, "ids": self.ids, "settings": chosen}
        blobs = LocalBlobs(self.folder / "blobs")
        self.attempts = Attempts(blobs=blobs, on_change=lambda: None, **common)
        limits = Limits(db=self.db, clock=self.watch, settings=chosen)
        own: dict[str, Any] = {"db": self.db, "clock": self.watch, "ids": self.ids, "limits": limits}
        placement = Placement(attempts=self.attempts, blobs_url=blobs.url, socket=self.folder / "c.sock", **own)
        self.scheduler = Scheduler(placement=placement, attempts=self.attempts, executor=self.machine, clock=self.watch)
        bases = Bases(db=self.db, clock=self.watch, settings=chosen)
        self.jobs = Jobs(bases=bases, executor=self.machine, on_change=lambda _=0.0, /: None, **own)
        self.pauses = Pauses(db=self.db, jobs=self.jobs, clock=self.watch, on_change=lambda _=0.0, /: None)

    @rule(seconds=st.floats(0.1, 100))
    def time_passes(self, seconds: float) -> None:
        self.watch.at += seconds

    @rule(n_ticks=st.integers(1, 4))
    def tick(self, n_ticks: int) -> None:
        for _ in range(n_ticks):
            with capture_logs() as logs:
                self.scheduler.tick()
            assert [line for line in logs if line["event"] == "scheduler.effect"] == []

    # clients

    def job(self, number: int) -> Job:
        return self.jobs.get(SCOPE, self.names[number % len(self.names)])

    @precondition(lambda self: len(self.names) < MOST_JOBS)
    @rule()
    def create(self) -> None:
        self.watch.at += 1.0
        self.names.append(self.jobs.create(SCOPE, CreateJob(model="nano", training_file="file-t", seed=1)).id)

    @precondition(lambda self: self.names)
    @rule(number=which)
    def cancel(self, number: int) -> None:
        before = self.job(number)
        if before.status in TERMINAL - {Status.CANCELLED}:
            with pytest.raises(StateConflict, match=f"already {before.status}"):
                self.jobs.cancel(SCOPE, before.id)
        else:
            assert self.jobs.cancel(SCOPE, before.id).status is Status.CANCELLED

    @precondition(lambda self: self.names)
    @rule(number=which)
    def pause(self, number: int) -> None:
        before = self.job(number)
        if before.status in TERMINAL:
            with pytest.raises(StateConflict):
                self.pauses.ask(SCOPE, before.id)
            return
        after = self.pauses.ask(SCOPE, before.id)
        assert after.desired is Desired.PAUSE
        assert after.status is (Status.RUNNING if before.status is Status.RUNNING else Status.PAUSED)

    @precondition(lambda self: self.names)
    @rule(number=which)
    def resume(self, number: int) -> None:
        before = self.job(number)
        if before.status in TERMINAL or Desired.PAUSE is not before.desired:
            with pytest.raises(StateConflict):
                self.pauses.resume(SCOPE, before.id)
            return
        after = self.pauses.resume(SCOPE, before.id)
        assert after.desired is Desired.RUN
        assert after.status in (Status.VALIDATING_FILES, Status.QUEUED, Status.RUNNING)

    # attempts

    def living(self, number: int) -> Attempt | None:
        found = [each for each in self.machine.attempts if each.alive]
        return found[number % len(found)] if found else None

    def send(self, attempt: Attempt, reports: list[Report], token: str | None = None) -> None:
        task = attempt.task
        desired = self.attempts.report(task.job, task.attempt, token or task.token, reports)
        attempt.pausing = desired == "pause"

    @rule(number=which, n_words=st.integers(1, 5), fate=st.sampled_from(["heard", "heard", "heard", "unheard", "fails"]))
    def work(self, number: int, n_words: int, fate: str) -> None:
        """Let a worker say something; what is not heard is left in its spool, and it dies with it."""
        attempt = self.living(number)
        if attempt is None:
            return
        for _ in range(n_words):
            error = {"code": "c", "param": None, "message": "m"}
            report = attempt._say("failed", "terminal", **error) if fate == "fails" else attempt.next()
            if fate == "unheard":
                attempt.unsent.append(report)
            else:
                try:
                    self.send(attempt, [report])
                except (Fenced, WrongToken):
                    attempt.end(Outcome(None, 9, killed=True))
                    return
            if report.kind in ("validated", "paused", "finished", "failed"):
                attempt.end(Outcome(0, None))
                return
        if fate == "unheard":
            attempt.end(Outcome(None, 9))

    @rule(number=which, last=st.integers(1, 8), old=st.booleans())
    def repeat(self, number: int, last: int, old: bool) -> None:
        """Say again what was said: it changes nothing, whoever says it."""
        said = [each for each in self.machine.attempts if each.said and (old or each.alive)]
        if not said:
            return
        attempt = said[number % len(said)]
        heard = [report for report in attempt.said if report not in attempt.unsent]
        before = self.jobs.get(SCOPE, attempt.task.job)
        try:
            self.send(attempt, heard[-last:])
        except (Fenced, WrongToken):
            assert before.attempt != attempt.task.attempt or before.token_sha256 is None
        after = self.jobs.get(SCOPE, attempt.task.job)
        assert (after.status, after.next_seq, after.attempt) == (before.status, before.next_seq, before.attempt)

    @precondition(lambda self: self.machine.attempts)
    @rule(number=which)
    def lie(self, number: int) -> None:
        """Speak with a token that is not the attempt's, or for an attempt that is not the job's."""
        attempt = self.machine.attempts[number % len(self.machine.attempts)]
        with pytest.raises((Fenced, WrongToken)):
            self.send(attempt, [Report("finished", attempt.task.job, attempt.task.attempt, "terminal", 1.0)], token="x")
        with pytest.raises(Fenced):
            self.attempts.report(attempt.task.job, attempt.task.attempt + 50, attempt.task.token, [])

    @rule(number=which, orphan=st.booleans(), told=st.booleans())
    def lose(self, number: int, orphan: bool, told: bool) -> None:
        if attempt := self.living(number):
            attempt.end(Outcome(None, 9) if told else None)
            attempt.orphan = orphan

    @invariant()
    def laws(self) -> None:
        self.history.check(training_slots=SLOTS)

    def teardown(self) -> None:
        """Left in peace and resumed, every job comes to its end, and no slot stays taken."""
        for _ in range(40 * len(self.names) + 1):
            self.tick(3)
            self.laws()
            rows = [self.jobs.get(SCOPE, name) for name in self.names]
            if all(row.status in TERMINAL and (row.attempt == 0 or row.released_at) for row in rows):
                break
            for row in rows:
                if row.status is Status.PAUSED:
                    self.pauses.resume(SCOPE, row.id)
            for number in range(len(self.machine.strays())):
                self.work(number, 2, "heard")
            self.watch.at += 10.0
        else:
            pytest.fail(f"no rest: {[(row.id, row.status, row.attempt) for row in rows]}")
        assert self.machine.strays() == frozenset() or all(
            row.status is Status.CANCELLED for row in rows if row.attempt == 0
        )


_OWNER = (DEFAULT_PROJECT, DEFAULT_ORGANIZATION)


def _base(folder: Path) -> Base:
    return Base(
        name="nano", kind="folder", source="", path=str(folder), created_at=0.0, architecture="X", context_length=512,
        n_parameters=1, weights_bytes=1, pins={"weights": "w"}, fingerprint=fingerprint(folder),
    )  # fmt: skip


@pytest.fixture
def play(url: str, tmp_path: Path) -> Any:
    """Return a function that lets Hypothesis play on the database."""
    (tmp_path / "base").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / "base" / name).write_bytes(b"{}")
    watch = Watch()
    db = Database(url, clock=watch, ids=Ids(random.Random(0)))

    def run(**changes: Any) -> None:
        chosen = settings(max_examples=N_EXAMPLES, stateful_step_count=N_CALLS)
        with capture_logs():
            run_state_machine_as_test(lambda: Lives(db, watch, tmp_path), settings=settings(chosen, **changes))

    yield run
    db.close()


@pytest.mark.slow
@pytest.mark.no_cover
def test_no_order_of_calls_breaks_a_law(play: Callable[[], None]) -> None:
    play()


def _tells_an_end_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wording, "lost", lambda *_: wording.failed("lost"))


def _believes_anybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hmac, "compare_digest", lambda *_: True)


def _forgets_to_tell_the_world(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(outbox, "add", lambda *_: None)


def _sees_no_strays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Machine, "strays", lambda _: frozenset())


@pytest.mark.slow
@pytest.mark.no_cover
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "fault",
    [_tells_an_end_twice, _forgets_to_tell_the_world, _sees_no_strays, *some([_believes_anybody], [])],
)
def test_a_service_with_a_fault_breaks_a_law(
    play: Callable[..., None], monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    fault(monkeypatch)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - whichever law it is, alone or in a group of several
        play(phases=[Phase.generate], report_multiple_bugs=False, max_examples=100, derandomize=True, database=None)
