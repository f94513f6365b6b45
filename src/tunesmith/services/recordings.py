"""Telling trackers of experiments: a thread that follows the events of every job that trains and hands its steps on.

A tracker says at the beginning what it has of a run, and is told whatever comes after it: so nothing is lost over a restart,
and nothing told twice. Training, cancel and the answers of the server wait for none of it.
"""

import asyncio
import json
import threading
from typing import Any, Final

import structlog

from tunesmith.core.clock import Clock
from tunesmith.core.errors import ApiError
from tunesmith.core.failpoint import failpoint
from tunesmith.core.secrets import SecretLost
from tunesmith.domain import events as wording
from tunesmith.domain.job import Event, Job
from tunesmith.domain.recording import (
    NAMES,
    End,
    OpenRun,
    Recording,
    TrackerFailed,
    Trackers,
    row_of,
    run_of,
    stage,
    summary_of,
)
from tunesmith.domain.results import FILENAME, results_csv
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.domain.states import TERMINAL, Status
from tunesmith.services.integrations import COMMAND, WANDB, Integrations
from tunesmith.store import events, jobs, metrics, models, recordings
from tunesmith.store.session import Database

#: How often rows are looked at, and the pauses after a failure; how long after a job's end it is still tried.
EVERY_S: Final = 1.0
FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 600.0
PATIENCE_S: Final = 72 * 3600.0
#: Runs at once, each a process; and steps handed over at once.
N_AT_ONCE: Final = 32
N_STEPS: Final = 500
_EVERYWHERE: Final = Everywhere("every project's jobs are told to its trackers")

log = structlog.get_logger()


class Recordings:
    """Tells trackers, from `start` to `stop`; what is under way then is gone on with by the next server."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        trackers: Trackers,
        integrations: Integrations,
        every_s: float = EVERY_S,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._db = db
        self._clock = clock
        self._trackers = trackers
        self._integrations = integrations
        self._every_s = every_s
        self._first_pause_s = first_pause_s
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="recordings", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def stop(self, *, timeout_s: float = 5.0) -> None:
        """Stop telling; the processes of runs end."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    async def _run(self) -> None:
        told: dict[tuple[str, int], asyncio.Task[None]] = {}
        while not self._ending.is_set():
            told = {key: task for key, task in told.items() if not task.done()}
            try:
                due = await asyncio.to_thread(self._due)
            except (ApiError, OSError):  # a full disk or an absent database now is not one in a moment
                log.exception("recording.look")
                due = []
            for recording in due:
                key = recording.job_id, recording.place
                if key not in told and len(told) < N_AT_ONCE:
                    told[key] = asyncio.create_task(self._record(recording))
            await asyncio.sleep(self._every_s)
        for task in told.values():
            task.cancel()
        await asyncio.gather(*told.values(), return_exceptions=True)

    def _due(self) -> list[Recording]:
        with self._db.read() as tx:
            return recordings.due(tx, _EVERYWHERE, limit=2 * N_AT_ONCE)

    async def _record(self, recording: Recording) -> None:
        """Tell a job's steps as they come, until it rests or has ended, or the tracker fails."""
        try:
            job = await asyncio.to_thread(self._job, recording)
            if job is None:
                return
            if job.started_at is None:
                await self._note(recording, status="finished")  # it ended before it trained: there is no run
                return
            await self._follow(recording, job)
        except TrackerFailed as error:
            await asyncio.to_thread(self._failed, recording, str(error))
        except (ApiError, OSError):
            log.exception("recording.record", job=recording.job_id)  # it is due still, and tried again
            await asyncio.sleep(self._first_pause_s)

    async def _follow(self, recording: Recording, job: Job) -> None:
        secret, url = await asyncio.to_thread(self._key, recording)
        run = await self._trackers.open(run_of(job, recording, secret=secret, base_url=url))
        try:
            await self._note(recording, status="recording", url=run.url, error=None)
            seq, at = 0, "trains"
            while at in ("trains", "waits"):
                news, at = await asyncio.to_thread(self._news, recording, seq)
                if news:
                    seq, at = news[-1].seq, "trains"
                    await self._tell(recording, run, news)
                elif at in ("trains", "waits"):
                    await asyncio.sleep(self._every_s)
            if at == "ended":
                await run.end(await asyncio.to_thread(self._end, recording))
            else:
                await run.rest()
            failpoint("recordings.told")
            await self._note(recording, status="finished" if at == "ended" else "resting")
        finally:
            await run.kill()

    async def _tell(self, recording: Recording, run: OpenRun, news: list[Event]) -> None:
        rows = [row for row in map(row_of, news) if row.step > run.last_step]
        if rows:
            await run.tell(rows)
            await self._note(
                recording, sent_step=rows[-1].step, sent_at=self._clock.now(), error=None, n_failures=0, next_try_at=0.0
            )

    def _key(self, recording: Recording) -> tuple[str | None, str | None]:
        """Return the key that a tracker is told with, and where it is for."""
        if recording.kind != WANDB or self._trackers.offline:
            return None, None
        try:
            found = self._integrations.key(_scope(recording), WANDB)
        except SecretLost as error:
            raise TrackerFailed(str(error)) from error
        if found is None:
            raise TrackerFailed(f"its key is registered no more; `{COMMAND}` registers one")
        return found

    def _job(self, recording: Recording) -> Job | None:
        with self._db.read() as tx:
            return jobs.get(tx, _scope(recording), recording.job_id)

    def _news(self, recording: Recording, seq: int) -> tuple[list[Event], str]:
        """Return the steps past an event, and what the job was at when there were no more."""
        with self._db.read() as tx:
            job = jobs.get(tx, _scope(recording), recording.job_id)
            news = events.steps(tx, _scope(recording), recording.job_id, after=seq, limit=N_STEPS)
        return news, "rests" if job is None else stage(job.status)

    def _end(self, recording: Recording) -> End:
        scope = _scope(recording)
        with self._db.read() as tx:
            job = jobs.get(tx, scope, recording.job_id)
            assert job is not None
            if job.status is not Status.SUCCEEDED:
                return End(job.status.value, summary_of(job))
            model = models.get(tx, scope, job.fine_tuned_model or "")
            rows = metrics.all(tx, scope, job.id)
        about: dict[str, Any] = {
            "fine_tuned_model": job.fine_tuned_model,
            "base": job.base,
            "base_sha256": job.pins,
            "adapter_sha256": None if model is None else model.sha256,
            "job": job.id,
            "method": job.method,
            "training_file": job.training_file,
            "validation_file": job.validation_file,
            "trained_tokens": job.trained_tokens,
        }
        files = {FILENAME: b"".join(results_csv(job.method, rows)).decode(), "model_metadata.json": json.dumps(about)}
        return End(job.status.value, summary_of(job), files)

    async def _note(self, recording: Recording, **changes: Any) -> None:
        def write() -> None:
            with self._db.begin() as tx:
                recordings.change(tx, _EVERYWHERE, recording.job_id, recording.place, **changes)

        await asyncio.to_thread(write)

    def _failed(self, recording: Recording, reason: str) -> None:
        """Write down why a tracker was not told, and when it is tried again; the job's owner is told at the first time."""
        now = self._clock.now()
        with self._db.begin() as tx:
            job = jobs.get(tx, _scope(recording), recording.job_id, lock=True)
            known = recordings.change(tx, _EVERYWHERE, recording.job_id, recording.place, error=reason)
            if job is None or known is None:
                return
            pause_s = min(LONGEST_PAUSE_S, self._first_pause_s * 2 ** min(known.n_failures, 20))
            late = job.finished_at is not None and now + pause_s > job.finished_at + PATIENCE_S
            recordings.change(
                tx, _EVERYWHERE, recording.job_id, recording.place, n_failures=known.n_failures + 1,
                next_try_at=now + pause_s, status="given_up" if late else known.status,
            )  # fmt: skip
            if job.status not in TERMINAL:  # an end is told last
                told = wording.tracker_failed(recording.place, NAMES[recording.kind], reason)
                events.append(tx, _scope(recording), job.id, job.attempt, [told])
        log.warning("recording.failed", job=recording.job_id, kind=recording.kind, reason=reason, late=late)


def _scope(recording: Recording) -> Project:
    return Project(recording.project_id, recording.organization_id)
