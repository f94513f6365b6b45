"""A job's life against the real database: whatever interleaves, it ends once, and everyone is told who won."""

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from near.database import make_database
from tunesmith.core.ids import Ids
from tunesmith.domain.file import File
from tunesmith.domain.job import Job, NewEvent
from tunesmith.domain.scope import Project
from tunesmith.domain.states import TERMINAL, Desired, Status
from tunesmith.store import events, files, jobs, outbox
from tunesmith.store.session import Database, Transaction

OWN = Project("proj_a", "org-a")
UNFINISHED = frozenset(Status) - TERMINAL


def claim(tx: Transaction, job: Job, target: Status) -> Job | None:
    """Give the job its next attempt, as a scheduler does with the row that it last saw."""
    claimed = jobs.swap(
        tx, OWN, job.id, expect_status={job.status}, expect_attempt=job.attempt, fence=True, status=target, released_at=None
    )
    if claimed is not None:
        events.append(tx, OWN, job.id, claimed.attempt, [NewEvent(f"started-{claimed.attempt}", "started")])
    return claimed


def end(tx: Transaction, job: Job, target: Status, expect_attempt: int | None) -> Job | None:
    """End the job: by its worker, which names its attempt, or from outside, which fences it."""
    outside = expect_attempt is None
    ended = jobs.swap(
        tx,
        OWN,
        job.id,
        expect_status=UNFINISHED,
        expect_attempt=expect_attempt,
        fence=outside,
        status=target,
        desired=Desired.CANCEL if outside else Desired.RUN,
        finished_at=tx.clock.now(),
    )
    if ended is not None:
        events.append(tx, OWN, job.id, ended.attempt, [NewEvent("terminal", str(target))])
        outbox.add(tx, OWN, job.id, f"fine_tuning.job.{target}")
    return ended


def write(tx: Transaction, job_id: str, attempt: int, key: str) -> bool:
    """Append an event as a worker of an attempt does: refused when the attempt is no longer the job's."""
    mine = jobs.swap(tx, OWN, job_id, expect_status=UNFINISHED, expect_attempt=attempt, counts={"last": key})
    if mine is None:
        return False
    events.append(tx, OWN, job_id, attempt, [NewEvent(key, key)])
    return True


def check_history(tx: Transaction, job_id: str) -> None:
    """Assert what must hold of any job at any time."""
    job = jobs.get(tx, OWN, job_id)
    assert job is not None
    told = events.page(tx, OWN, job_id, limit=10_000)[0][::-1]
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    assert job.next_seq == len(told) + 1
    terminal = [event for event in told if event.idempotency_key == "terminal"]
    if job.status in TERMINAL:
        assert [event.message for event in terminal] == [str(job.status)]
        assert told[-1] is terminal[0]
        assert outbox.pending(tx, OWN, job_id) == [f"fine_tuning.job.{job.status}"]
        assert job.finished_at is not None
    else:
        assert terminal == []
        assert outbox.pending(tx, OWN, job_id) == []
        assert job.finished_at is None
    attempts = [event.attempt for event in told]
    assert attempts == sorted(attempts)


class Life(RuleBasedStateMachine):
    """One job, a scheduler with stale sight, workers of old and new attempts, an owner who cancels, a file that expires."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.clock = Standing()
        path = Path(self.folder.name) / "x.db"
        self.db = Database(make_database(path), clock=self.clock, ids=Ids(random.Random(0)))
        #: Every row that somebody once saw, and the terminal row once there is one.
        self.sights: list[Job] = []
        self.final: Job | None = None
        self.n_keys = 0

    def teardown(self) -> None:
        self.db.close()
        self.folder.cleanup()

    @initialize()
    def begin(self) -> None:
        job = replace(_JOB, created_at=self.clock.at)
        with self.db.begin() as tx:
            files.add(tx, OWN, replace(_FILE, expires_at=self.clock.at + 50))
            self.sights.append(jobs.add(tx, OWN, job, [NewEvent("created", "created")]))

    def _took(self, before: Job, after: Job | None, expected: bool) -> None:
        assert (after is not None) == expected
        if after is None:
            return
        assert before.status not in TERMINAL, "a terminal job was changed"
        assert after.attempt >= before.attempt
        assert after.version == before.version + 1
        self.sights.append(after)
        if after.status in TERMINAL:
            self.final = after

    def _now(self, tx: Transaction) -> Job:
        job = jobs.get(tx, OWN, _JOB.id)
        assert job is not None
        return job

    @rule(data=st.data())
    def claim_with_stale_sight(self, data: st.DataObject) -> None:
        seen = data.draw(st.sampled_from(self.sights))
        if seen.status not in (Status.VALIDATING_FILES, Status.QUEUED):
            return
        target = Status.RUNNING if seen.status is Status.QUEUED else Status.VALIDATING_FILES
        with self.db.begin() as tx:
            now = self._now(tx)
            fresh = (now.status, now.attempt) == (seen.status, seen.attempt)
            self._took(now, claim(tx, seen, target), fresh)

    @rule(data=st.data(), fresh=st.booleans())
    def write_of_any_attempt(self, data: st.DataObject, fresh: bool) -> None:
        attempt = data.draw(st.sampled_from(self.sights)).attempt
        if fresh:
            self.n_keys += 1
        with self.db.begin() as tx:
            now = self._now(tx)
            assert write(tx, _JOB.id, attempt, f"s{self.n_keys}") == (now.attempt == attempt and now.status not in TERMINAL)

    @rule(data=st.data(), outcome=st.sampled_from([Status.SUCCEEDED, Status.FAILED, Status.QUEUED]))
    def report_of_any_attempt(self, data: st.DataObject, outcome: Status) -> None:
        attempt = data.draw(st.sampled_from(self.sights)).attempt
        with self.db.begin() as tx:
            now = self._now(tx)
            known = {
                Status.SUCCEEDED: {Status.RUNNING},
                Status.FAILED: UNFINISHED,
                Status.QUEUED: {Status.VALIDATING_FILES, Status.RUNNING, Status.PAUSED, Status.QUEUED},
            }[outcome]
            expected = now.attempt == attempt and now.status in known
            if outcome is Status.QUEUED:
                after = jobs.swap(
                    tx, OWN, now.id, expect_status=UNFINISHED, expect_attempt=attempt, status=outcome, released_at=1.0
                )
            else:
                after = end(tx, now, outcome, attempt)
            self._took(now, after, expected)

    @rule()
    def cancel(self) -> None:
        with self.db.begin(urgent=True) as tx:
            now = self._now(tx)
            self._took(now, end(tx, now, Status.CANCELLED, None), now.status not in TERMINAL)

    @rule(seconds=st.integers(1, 30))
    def time_passes(self, seconds: int) -> None:
        self.clock.at += seconds

    @precondition(lambda self: bool(self.sights))
    @rule()
    def sweep_what_has_expired(self) -> None:
        with self.db.begin() as tx:
            now = self._now(tx)
            for file in files.unneeded(tx, OWN, limit=10):
                assert now.status in TERMINAL, "a job's file was swept away under it"
                files.forget(tx, OWN, file.id)

    @rule()
    def delete_the_file(self) -> None:
        with self.db.begin() as tx:
            files.delete_one(tx, OWN, _FILE.id)
            assert files.get(tx, OWN, _FILE.id) is None

    @invariant()
    def the_history_is_whole(self) -> None:
        if not self.sights:
            return
        with self.db.read() as tx:
            check_history(tx, _JOB.id)
            if self.final is not None:
                assert replace(self._now(tx), next_seq=0, version=0) == replace(self.final, next_seq=0, version=0)
            elif self._now(tx).status not in TERMINAL:
                assert files.retained(tx, OWN, _FILE.id) is not None


class Standing:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at = 1_700_000_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


_FILE = File("file-a", "proj_a", "org-a", 1.0, "x.jsonl", "fine-tune", 1, "0" * 64, "files/file-a")
_JOB = Job(
    id="ftjob-life",
    project_id="proj_a",
    organization_id="org-a",
    model="nano",
    base="nano",
    start_adapter=None,
    training_file="file-a",
    validation_file=None,
    suffix=None,
    seed=1,
    method="supervised",
    method_config={},
    resolved=None,
    integrations=[],
    metadata=None,
    created_at=1.0,
)

Life.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
test_life = Life.TestCase


@pytest.mark.slow
def test_races_of_cancel_finish_and_a_late_write(db: Database, new_job: Callable[..., Job]) -> None:
    made = [new_job(status=Status.RUNNING, attempt=1) for _ in range(200 if db.is_sqlite else 60)]
    with db.begin() as tx:
        for job in made:
            jobs.add(tx, OWN, job, [NewEvent("created", "created")])
    won: dict[str, list[Status]] = {job.id: [] for job in made}
    turn = threading.Barrier(3)

    def race(act: Callable[[Transaction, Job], Job | None], *, urgent: bool) -> None:
        for job in made:
            turn.wait(60)
            with db.begin(urgent=urgent) as tx:
                ended = act(tx, job)
            if ended is not None:
                won[job.id].append(ended.status)

    def write_late(tx: Transaction, job: Job) -> None:
        write(tx, job.id, 1, "s1")

    racers = [
        threading.Thread(target=race, args=(lambda tx, job: end(tx, job, Status.CANCELLED, None),), kwargs={"urgent": True}),
        threading.Thread(target=race, args=(lambda tx, job: end(tx, job, Status.SUCCEEDED, 1),), kwargs={"urgent": False}),
        threading.Thread(target=race, args=(write_late,), kwargs={"urgent": False}),
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(240)
    with db.read() as tx:
        ends = {job.id: jobs.get(tx, OWN, job.id) for job in made}
        for job_id in ends:
            check_history(tx, job_id)
    assert won == {job_id: [stored.status] for job_id, stored in ends.items() if stored is not None}
    for stored in ends.values():
        assert stored is not None
        assert stored.attempt == (2 if stored.status is Status.CANCELLED else 1)
