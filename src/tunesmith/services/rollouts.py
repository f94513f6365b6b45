"""What a job's training left to be read: the answers that it sampled, step by step; base and tuned model side by side."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal

from tunesmith.core.errors import InvalidRequest, JobNotFound
from tunesmith.domain.job import Job
from tunesmith.domain.ports import Blobs
from tunesmith.domain.scope import Project
from tunesmith.store import jobs
from tunesmith.store.session import Database

Split = Literal["train", "valid"]

_FILE: Final = re.compile(r"/(\d+)\.jsonl$")


@dataclass(frozen=True, slots=True)
class Rollout:
    """One answer that training sampled and graded, as its worker wrote it."""

    id: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Reads them from the blob store, where the newest attempt's file counts; no row tells of them."""

    db: Database
    blobs: Blobs

    def page(
        self,
        scope: Project,
        job_id: str,
        *,
        step: int | None = None,
        split: Split | None = None,
        after: str | None = None,
        limit: int = 20,
    ) -> tuple[list[Rollout], bool, int | None, list[int]]:
        """Return a step's rollouts in order, whether there are more, the step, and every step that has some.

        Without `step` they are those of the newest one.

        Raises:
            JobNotFound: the project has none of this id.
            InvalidRequest: `after` names no rollout of the step.
        """
        job = self._job(scope, job_id)
        found = self._steps(job)
        steps = sorted(found)
        if step is None and steps:
            step = steps[-1]
        page: list[Rollout] = []
        passed = after is None
        if step is not None and step in found:
            with self.blobs.open(found[step]) as stream:
                for rollout in _read(stream, step):
                    if not passed:
                        passed = rollout.id == after
                    elif split is None or rollout.data.get("split") == split:
                        page.append(rollout)
                        if len(page) > limit:
                            break
        if not passed:
            raise InvalidRequest(
                f"There is no rollout with id '{after}' in step {step} of {job_id} to list after.", param="after"
            )
        return page[:limit], len(page) > limit, step, steps

    def comparison(self, scope: Project, job_id: str) -> tuple[Job, dict[str, Any] | None]:
        """Return the job, and base and tuned model side by side once its run has ended with that.

        Raises:
            JobNotFound: the project has none of this id.
        """
        job = self._job(scope, job_id)
        for attempt in range(job.attempt, 0, -1):
            with suppress(FileNotFoundError), self.blobs.open(f"jobs/{job.id}/attempts/{attempt}/comparison.json") as stream:
                return job, _parsed(stream.read())
        return job, None

    def _job(self, scope: Project, job_id: str) -> Job:
        with self.db.read() as tx:
            job = jobs.get(tx, scope, job_id)
        if job is None:
            raise JobNotFound(job_id)
        return job

    def _steps(self, job: Job) -> dict[int, str]:
        """Return the key of every step's file; the newest attempt that took a step has the last word on it."""
        found: dict[int, str] = {}
        for attempt in range(1, job.attempt + 1):
            for key in self.blobs.keys(f"jobs/{job.id}/attempts/{attempt}/rollouts"):
                if match := _FILE.search(key):
                    found[int(match[1])] = key
        return found


def _read(stream: BinaryIO, step: int) -> Iterator[Rollout]:
    for number, line in enumerate(stream):
        if line.strip():
            yield Rollout(f"rollout-{step}-{number}", _parsed(line))


def _parsed(text: bytes) -> dict[str, Any]:
    """Return an object; what is no number in JSON is null."""
    return json.loads(text, parse_constant=lambda _: None)
