"""Requests at the service level with 10,000 and 100,000 jobs in the table: milliseconds of wall time, and of CPU time."""

import logging
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import structlog
from sqlalchemy import insert

from tunesmith.core.clock import SystemClock
from tunesmith.core.ids import Ids
from tunesmith.core.settings import Settings
from tunesmith.domain.scope import Project
from tunesmith.executors.local import LocalExecutor
from tunesmith.services.bases import Bases
from tunesmith.services.jobs import Jobs
from tunesmith.services.limits import Limits
from tunesmith.store.session import Database
from tunesmith.store.tables import events, job_metadata, jobs

OWN = Project("proj_default")
N_CALLS = 200
N_EVENTS = 20


def main() -> int:
    """Fill a database, call, print; return 1 when list or retrieve at 10,000 jobs is above 20 ms at p99."""
    slow = False
    for n_jobs in (10_000, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            slow |= _measure(Path(folder), n_jobs) > 20 and n_jobs == 10_000
    return int(slow)


def _measure(folder: Path, n_jobs: int) -> float:
    """Print the table of one size and return the worst p99 of the reads, in milliseconds."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    clock, ids = SystemClock(), Ids(random.Random(0))
    db = Database(f"sqlite:///{folder / 'x.db'}", clock=clock, ids=ids)
    db.migrate()
    known = _fill(db, ids, n_jobs)
    settings = Settings(data_dir=folder)
    service = Jobs(
        db=db,
        bases=Bases(db=db, clock=clock, settings=settings),
        clock=clock,
        ids=ids,
        limits=Limits(db=db, clock=clock, settings=settings),
        executor=LocalExecutor(folder / "attempts"),
        on_change=lambda: None,
    )
    picked = random.Random(1)
    print(f"{n_jobs:>7} jobs, ms              p50       p99       max   CPU p50   CPU p99")
    reads: dict[str, Callable[[], object]] = {
        "retrieve": lambda: service.get(OWN, picked.choice(known)),
        "list, first 20": lambda: service.page(OWN),
        "list, 100 after any": lambda: service.page(OWN, after=picked.choice(known), limit=100),
        "list by metadata": lambda: service.page(OWN, metadata={"run": str(picked.randrange(n_jobs // 10))}),
        "list by rare pair": lambda: service.page(OWN, metadata={"team": "b"}),
        "list without metadata": lambda: service.page(OWN, metadata="null"),
        "events, first 20": lambda: service.events(OWN, picked.choice(known)),
    }
    worst = max(_row(name, call) for name, call in reads.items())
    _row("cancel (a commit)", lambda: service.cancel(OWN, picked.choice(known)))
    print()
    db.close()
    return worst


def _row(name: str, call: Callable[[], object]) -> float:
    times_ms: list[float] = []
    cpu_ms: list[float] = []
    call()
    for _ in range(N_CALLS):
        start, cpu_start = time.perf_counter(), time.thread_time()
        call()
        cpu_ms.append((time.thread_time() - cpu_start) * 1e3)
        times_ms.append((time.perf_counter() - start) * 1e3)
    wall, cpu = statistics.quantiles(times_ms, n=100), statistics.quantiles(cpu_ms, n=100)
    print(f"  {name:<24}{wall[49]:>9.2f} {wall[98]:>9.2f} {max(times_ms):>9.2f} {cpu[49]:>9.2f} {cpu[98]:>9.2f}", flush=True)
    return wall[98]


def _fill(db: Database, ids: Ids, n_jobs: int) -> list[str]:
    """Insert jobs, nine in ten with metadata, and return their ids."""
    made = [_job(ids.job(), number) for number in range(n_jobs)]
    pairs = [
        {**{name: job[name] for name in ("project_id", "created_at")}, "job_id": job["id"], "key": key, "value": value}
        for job in made
        for key, value in (job["metadata"] or {}).items()
    ]
    with db.begin() as tx:
        tx.execute(insert(jobs), made)
        tx.execute(insert(job_metadata), pairs)
        if n_jobs <= 10_000:
            for job in made:
                tx.execute(insert(events), [_event(ids.event(), job["id"], seq) for seq in range(1, N_EVENTS + 1)])
    return [job["id"] for job in made]


def _job(job_id: str, number: int) -> dict[str, object]:
    team = "b" if number % 1000 == 1 else "a"
    return {
        "id": job_id,
        "project_id": OWN.project_id,
        "organization_id": OWN.organization_id,
        "model": "tunesmith-nano",
        "base": "tunesmith-nano",
        "training_file": "file-x",
        "seed": number,
        "method": "supervised",
        "method_config": {"hyperparameters": {"n_epochs": "auto", "batch_size": "auto"}},
        "integrations": [],
        "metadata": {"team": team, "run": str(number // 10)} if number % 10 else None,
        "created_at": 1.7e9 + number // 3,
        "status": "validating_files" if number % 2 else "queued",
        "desired": "run",
        "attempt": 0,
        "lost_attempts": 0,
        "not_before": 0.0,
        "result_files": [],
        "pins": {},
        "next_seq": N_EVENTS + 1,
        "version": 1,
    }


def _event(event_id: str, job_id: str, seq: int) -> dict[str, object]:
    return {
        "job_id": job_id,
        "seq": seq,
        "id": event_id,
        "project_id": OWN.project_id,
        "attempt": 1,
        "idempotency_key": f"s{seq}",
        "created_at": 1.7e9,
        "level": "info",
        "message": f"Step {seq}/{N_EVENTS}: training loss=0.50",
        "type": "metrics",
        "data": {"step": seq, "train_loss": 0.5},
    }


if __name__ == "__main__":
    sys.exit(main())
