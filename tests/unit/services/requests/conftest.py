"""What requests are served with: real services on a real database and a real blob folder, with a clock that is set."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from near.database import make_database
from tunesmith.blobs.local import LocalBlobs
from tunesmith.core.ids import Ids
from tunesmith.core.settings import Settings
from tunesmith.data.folder import fingerprint
from tunesmith.domain.file import File
from tunesmith.domain.job import CreateJob, Job
from tunesmith.domain.model import Base
from tunesmith.domain.ports import Handle
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.inference.resident import Resident
from tunesmith.inference.upstream import HttpUpstreams
from tunesmith.inference.vllm import VllmServers
from tunesmith.services.bases import Bases
from tunesmith.services.files import Files
from tunesmith.services.forgetting import Forgetting
from tunesmith.services.idempotency import Idempotency
from tunesmith.services.jobs import Jobs
from tunesmith.services.limits import Limits
from tunesmith.services.models import Models
from tunesmith.services.vllm import Vllm
from tunesmith.store import models
from tunesmith.store.session import Database

OWN = Project("proj_a", "org-a")
ROWS = b'{"messages": []}\n{"messages": []}\n'


class SetClock:
    def __init__(self) -> None:
        self.at = 1_700_000_000.5

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class Graveyard:
    """An executor that remembers whom it was asked to stop; nothing is ever started in these tests."""

    def __init__(self) -> None:
        self.stopped: list[Handle] = []

    def stop(self, handle: Handle) -> None:
        self.stopped.append(handle)


@dataclass
class Rig:
    db: Database
    blobs: LocalBlobs
    clock: SetClock
    bases: Bases
    jobs: Jobs
    files: Files
    models: Models
    idempotency: Idempotency
    executor: Graveyard
    folder: Path
    wakes: list[int] = field(default_factory=list)

    def upload(self, scope: Project = OWN, **changes: Any) -> File:
        asked: dict[str, Any] = {"filename": "t.jsonl", "purpose": "fine-tune", "chunks": [ROWS], "expires_after_s": None}
        return self.files.create(scope, **{**asked, **changes})

    def job(self, **changes: Any) -> Job:
        asked = {"model": "nano", "training_file": None, **changes}
        if asked["training_file"] is None:
            asked["training_file"] = self.upload().id
        return self.jobs.create(OWN, CreateJob(**asked))

    def delete(self, name: str) -> None:
        asyncio.run(self.models.delete(OWN, name))

    def set(self, job: Job, **changes: Any) -> Job:
        """Write a job's columns past the rules, as a history that these tests do not play."""
        from sqlalchemy import update

        from tunesmith.store.tables import jobs as table

        with self.db.begin() as tx:
            tx.execute(update(table).where(table.c.id == job.id).values(**changes))
        return self.jobs.get(OWN, job.id)

    def told(self, job: Job) -> list[tuple[str, str]]:
        found, _ = self.jobs.events(OWN, job.id, limit=100)
        return [(event.level, event.message) for event in reversed(found)]

    def bytes_of(self, file: File) -> bool:
        return self.blobs.keys(file.key) == [file.key]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    clock, ids = SetClock(), Ids(random.Random(3))
    db = Database(make_database(tmp_path / "x.db"), clock=clock, ids=ids)
    blobs = LocalBlobs(tmp_path / "blobs")
    settings = Settings(data_dir=tmp_path, max_file_bytes=10_000, max_line_bytes=1_000)
    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes(b"{}")
    bases = Bases(db=db, clock=clock, settings=settings)
    base = Base("nano", "folder", str(folder), str(folder), 1.0, "X", 128, 10, 20, {"weights": "w"}, ["gpt-4o-mini"])
    with db.begin() as tx:
        models.add_base(tx, Everywhere("test"), replace(base, fingerprint=fingerprint(folder)))
    executor, wakes = Graveyard(), list[int]()
    job_service = Jobs(
        db=db,
        bases=bases,
        clock=clock,
        ids=ids,
        limits=(limits := Limits(db=db, clock=clock, settings=settings)),
        executor=executor,
        on_change=lambda _=0.0, /: wakes.append(1),
    )  # type: ignore[arg-type]
    file_service = Files(db=db, blobs=blobs, clock=clock, ids=ids, settings=settings, jobs=job_service, limits=limits)
    model_service = Models(
        db=db,
        blobs=blobs,
        forgetting=Forgetting(
            Resident(tmp_path, settings=settings, clock=clock),
            Vllm(
                HttpUpstreams(clock=clock),
                VllmServers(tmp_path, settings=settings, clock=clock),
                tmp_path / "blobs",
                n_most=1,
            ),
        ),
        settings=settings,
    )
    kept = Idempotency(db=db, clock=clock, ids=ids)
    yield Rig(db, blobs, clock, bases, job_service, file_service, model_service, kept, executor, folder, wakes)
    db.close()
