"""A data folder with many ended jobs, an event each, put into its database in bulk."""

import random
from pathlib import Path

from sqlalchemy import insert

from tunesmith.core.clock import SystemClock
from tunesmith.core.ids import Ids
from tunesmith.store.session import Database
from tunesmith.store.tables import events, job_metadata, jobs

PROJECT = "proj_default"
AUTO = {"batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": "auto"}
N_AT_ONCE = 10_000


def fill(folder: Path, n_jobs: int) -> list[str]:
    """Put jobs into a data folder's database and return their ids, oldest first."""
    folder.mkdir(parents=True)
    ids, clock = Ids(random.Random(0)), SystemClock()
    db = Database(f"sqlite:///{folder / 'tunesmith.db'}", clock=clock, ids=ids)
    db.migrate()
    oldest, made = clock.now() - n_jobs, list[str]()
    for first in range(0, n_jobs, N_AT_ONCE):
        rows = [_job(ids.job(), number, oldest + number) for number in range(first, min(first + N_AT_ONCE, n_jobs))]
        pairs = [
            {"job_id": row["id"], "project_id": PROJECT, "key": key, "value": value, "created_at": row["created_at"]}
            for row in rows
            for key, value in row["metadata"].items()
        ]
        with db.begin() as tx:
            tx.execute(insert(jobs), rows)
            tx.execute(insert(job_metadata), pairs)
            tx.execute(insert(events), [_event(ids.event(), row["id"], row["created_at"]) for row in rows])
        made += [row["id"] for row in rows]
    db.close()
    return made


def _job(job_id: str, number: int, created_at: float) -> dict[str, object]:
    return {
        "id": job_id,
        "project_id": PROJECT,
        "organization_id": "org-default",
        "model": "tunesmith-nano",
        "base": "tunesmith-nano",
        "training_file": "file-benchmark",
        "suffix": f"run-{number}",
        "seed": number,
        "method": "supervised",
        "method_config": {"hyperparameters": AUTO},
        "resolved": {"batch_size": 1, "learning_rate_multiplier": 1.0, "n_epochs": 3},
        "integrations": [],
        "metadata": {"run": str(number % 100), "team": "benchmark"},
        "created_at": created_at,
        "status": "cancelled",
        "desired": "cancel",
        "attempt": 0,
        "lost_attempts": 0,
        "not_before": 0.0,
        "queued_at": created_at,
        "finished_at": created_at,
        "result_files": [],
        "pins": {},
        "next_seq": 2,
        "version": 1,
    }


def _event(event_id: str, job_id: str, created_at: float) -> dict[str, object]:
    return {
        "job_id": job_id,
        "seq": 1,
        "id": event_id,
        "project_id": PROJECT,
        "attempt": 0,
        "idempotency_key": "created",
        "created_at": created_at,
        "level": "info",
        "message": f"Created fine-tuning job: {job_id}",
        "type": "message",
        "data": {},
    }
