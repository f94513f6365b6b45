"""Dry runs: what a job would be, do, take and cost, and what is wrong with its files, without creating it."""

import asyncio
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from anyio import to_thread

from tunesmith.core.clock import Clock
from tunesmith.core.errors import InvalidRequest
from tunesmith.core.machine import gpus, has_bf16, memory_bytes, n_cores, readable_bytes
from tunesmith.core.settings import Settings
from tunesmith.data.folder import BrokenFolder, read_folder
from tunesmith.data.thinking import n_tokens
from tunesmith.domain.estimate import Estimate, Pace, Work, by_jobs, by_rule
from tunesmith.domain.estimate import memory_bytes as training_bytes
from tunesmith.domain.file import File
from tunesmith.domain.job import CreateJob, Job
from tunesmith.domain.model import Base
from tunesmith.domain.preflight import Cost, Memory, Preflight, Tried
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.domain.tasks import DryRunSpec
from tunesmith.graders.grader import Grader
from tunesmith.methods.auto import group_size
from tunesmith.services.jobs import Jobs, usable_files
from tunesmith.services.rewards import Rewards
from tunesmith.services.specs import Gone, Specs, found_base
from tunesmith.services.surveys import Surveys
from tunesmith.services.trials import Trials, doubts
from tunesmith.store import paces
from tunesmith.store.session import Database

#: Rows of each file whose errors are told one by one.
N_ERRORS: Final = 100
#: How old runs may be that estimates go by.
_RECENT_S: Final = 90 * 86400.0
_MILLION: Final = 1_000_000
#: How fast this machine trains is no project's secret.
_SCOPE: Final = Everywhere("estimates go by every run of this server")


class Preflights:
    """Makes dry runs."""

    def __init__(
        self,
        *,
        db: Database,
        jobs: Jobs,
        rewards: Rewards,
        trials: Trials,
        surveys: Surveys,
        specs: Specs,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._db = db
        self._jobs = jobs
        self._rewards = rewards
        self._trials = trials
        self._surveys = surveys
        self._specs = specs
        self._clock = clock
        self._settings = settings
        #: GPUs are asked for once: the driver's tool takes its time.
        self._gpus = cache(gpus)

    async def make(self, scope: Project, request: CreateJob, grader: Grader | None) -> Preflight:
        """Look at everything that a job of the request would be made of; `grader` is that of a reinforcement job.

        Raises:
            InvalidRequest, NotAvailable, OverQuota: what creating the job would refuse.
            RateLimited, Unavailable: the files cannot be read now.
        """
        if grader is not None:
            await self._rewards.check(scope, request, grader)
        job = await to_thread.run_sync(self._jobs.prepare, scope, request)
        spec, base, file = await to_thread.run_sync(self._looked_up, scope, request, job)
        reading = asyncio.ensure_future(self._surveys.run(spec))
        try:
            grades = await self._grades(scope, request, grader, file)
            told = await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        return await to_thread.run_sync(self._put_together, job, base, told, grades)

    def close(self) -> None:
        """End what is being read."""
        self._surveys.close()

    def _looked_up(self, scope: Project, request: CreateJob, job: Job) -> tuple[DryRunSpec, Base, File]:
        with self._db.read() as tx:
            files = usable_files(tx, scope, request)
            try:
                spec, base = self._specs.validate(tx, job), found_base(tx, job)
            except Gone as gone:
                raise InvalidRequest(str(gone), param=str(gone.error["param"])) from gone
        seconds = self._settings.preflight_seconds
        return DryRunSpec(spec, seconds=seconds, n_errors=N_ERRORS, parent=0), base, files["training_file"]

    async def _grades(self, scope: Project, request: CreateJob, grader: Grader | None, file: File) -> list[Tried] | None:
        if grader is None:
            return None
        return await self._trials.run(scope, request, grader, file, seconds=self._settings.preflight_seconds)

    def _put_together(self, job: Job, base: Base, told: dict[str, Any], grades: list[Tried] | None) -> Preflight:
        outcome = told["outcome"]
        if outcome is not None:
            job = replace(job, resolved=outcome["hyperparameters"])
        longest = max((file["longest"]["tokens"] for file in told["files"] if file["longest"]), default=0)
        memory = self._memory(base, job.method, min(longest, base.context_length))
        estimate = None if outcome is None else self._estimate(job, base, outcome)
        warnings = [*told["warnings"], *doubts(grades or ())]
        if memory.bytes > memory.machine_bytes:
            warnings.append(
                f"The training is reckoned to hold {readable_bytes(memory.bytes)} at its peak, and this machine has "
                f"{readable_bytes(memory.machine_bytes)}{' on a GPU' if memory.on_gpu else ''}: take a smaller base model."
            )
        return Preflight(
            job=job,
            error=told["error"],
            files=told["files"],
            outcome=outcome,
            estimate=estimate,
            memory=memory,
            cost=self._cost(estimate),
            grades=grades,
            warnings=warnings,
        )

    def _estimate(self, job: Job, base: Base, outcome: dict[str, Any]) -> Estimate:
        work = _work(job, base, outcome)
        return by_jobs(self._paces(job), work) or by_rule(
            work,
            n_parameters=base.n_parameters,
            n_cores=min(n_cores(), self._specs.threads(base)),
            n_gpus=min(len(self._gpus()), self._settings.training_processes),
        )

    def _paces(self, job: Job) -> list[Pace]:
        since = self._clock.now() - _RECENT_S
        with self._db.read() as tx:
            return paces.recent(tx, _SCOPE, base=job.base, pins=job.pins, method=job.method, since=since)

    def _memory(self, base: Base, method: str, n_longest: int) -> Memory:
        try:
            config = read_folder(Path(base.path)).config
        except BrokenFolder:
            config = {}
        found = self._gpus()
        itemsize = 2 if found or has_bf16() else 4
        n_bytes = training_bytes(
            config, n_parameters=base.n_parameters, n_longest=n_longest, itemsize=itemsize, method=method
        )
        machine = min(gpu.memory_bytes for gpu in found) if found else memory_bytes()
        return Memory(n_bytes, machine, bool(found))

    def _cost(self, estimate: Estimate | None) -> Cost | None:
        price = self._settings.training_price
        if price is None or estimate is None or estimate.trained_tokens is None:
            return None
        n_tokens = estimate.trained_tokens
        return Cost(n_tokens * price / _MILLION, self._settings.training_currency, price, n_tokens)


def _work(job: Job, base: Base, outcome: dict[str, Any]) -> Work:
    knobs = outcome["hyperparameters"]
    if job.method != "reinforcement":
        return Work(job.method, outcome["tokens"] * knobs["n_epochs"])
    samples = outcome["n_examples"] * knobs["n_epochs"] * group_size(knobs["compute_multiplier"])
    longest = n_tokens(knobs["reasoning_effort"], thinks=False, context_length=base.context_length)
    return Work(job.method, samples, (outcome["tokens"] / outcome["n_examples"], longest))
