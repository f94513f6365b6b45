"""What a job's page shows beyond the job object: what was asked and what came of it, its progress, its metrics as curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tunesmith.core.errors import JobNotFound
from tunesmith.domain.job import Job
from tunesmith.domain.results import table
from tunesmith.domain.scope import Project
from tunesmith.store import jobs, metrics
from tunesmith.store.session import Database

#: A curve on a screen shows no more than this.
N_POINTS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Curves:
    """A job's metrics by step: `rows` hold the step and then a value, or None, for each of `columns`."""

    job: Job
    columns: list[str]
    rows: list[list[float | int | None]]
    #: How many steps have metrics, of which `rows` may hold a part.
    n_steps: int


@dataclass(frozen=True, slots=True)
class Details:
    """Reads jobs for those who look at them."""

    db: Database

    def job(self, scope: Project, job_id: str) -> tuple[Job, int | None]:
        """Return a job and the last step that has metrics.

        Raises:
            JobNotFound: the project has none of this id.
        """
        with self.db.read() as tx:
            job = jobs.get(tx, scope, job_id)
            if job is None:
                raise JobNotFound(job_id)
            return job, metrics.last_step(tx, scope, job_id)

    def curves(self, scope: Project, job_id: str, *, after: int | None = None, points: int = N_POINTS) -> Curves:
        """Return the metrics of the steps after `after`, thinned out to about `points` of them.

        Raises:
            JobNotFound: the project has none of this id.
        """
        with self.db.read() as tx:
            job = jobs.get(tx, scope, job_id)
            if job is None:
                raise JobNotFound(job_id)
            found = metrics.all(tx, scope, job_id, after=after)
        names, rows = table(job.method, found)
        measured = [index for index, _ in enumerate(names, 1) if any(_is_number(row[index]) for row in rows)]
        numbers = [[row[0], *(row[index] if _is_number(row[index]) else None for index in measured)] for row in rows]
        return Curves(job, [names[index - 1] for index in measured], thinned(numbers, points), len(found))


def thinned(rows: Sequence[list[Any]], points: int) -> list[list[Any]]:
    """Return about `points` of `rows`: of every stretch of steps the lowest and the highest value of each column stay.

    What is rarely measured (a validation loss) stays whole as long as there is room, and so do the first and last row.
    """
    if len(rows) <= points:
        return list(rows)
    n_columns = len(rows[0]) - 1
    rare = {column for column in range(1, n_columns + 1) if 2 * sum(row[column] is not None for row in rows) < points}
    kept = {0, len(rows) - 1}
    for column in rare:
        kept.update(index for index, row in enumerate(rows) if row[column] is not None)
    dense = [column for column in range(1, n_columns + 1) if column not in rare]
    n_stretches = max(1, points // max(1, 2 * len(dense)))
    size = -(-len(rows) // n_stretches)
    for begin in range(0, len(rows), size):
        for column in dense:
            some = [index for index in range(begin, min(begin + size, len(rows))) if rows[index][column] is not None]
            if some:
                kept.add(min(some, key=lambda index: rows[index][column]))
                kept.add(max(some, key=lambda index: rows[index][column]))
    return [rows[index] for index in sorted(kept)]


def requested(job: Job) -> Mapping[str, Any]:
    """Return the hyperparameters as they were asked for, `auto` where they were left to the server."""
    return job.method_config["hyperparameters"]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
