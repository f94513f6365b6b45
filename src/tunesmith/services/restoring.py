"""An installation made of a backup: every file is compared with its hash, and no job waits for a process of elsewhere."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunesmith.core.clock import Clock
from tunesmith.core.ids import Ids
from tunesmith.domain import events as wording
from tunesmith.domain.job import Job
from tunesmith.domain.scope import DEFAULT_PROJECT, Everywhere
from tunesmith.domain.states import TERMINAL, Desired, Status
from tunesmith.services.backup import DATABASE, FORM, MANIFEST
from tunesmith.store import audit, checkpoints, events, jobs, models
from tunesmith.store.session import Database, Transaction

_N_CHUNK_BYTES: Final = 1024 * 1024
_REASON: Final = "The installation was restored from a backup"
#: Of the audit log; it tells of the jobs that go on.
RESTORED: Final = "installation.restored"
_SCOPE: Final = Everywhere("a backup is of the whole installation")


class RestoreRefused(Exception):
    """The backup cannot be restored so; the text tells why and the way out."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was made of a backup."""

    n_files: int
    n_bytes: int
    created_at: float
    #: Jobs that ran when the backup was made.
    going_on: list[str]
    #: What was not there any more when the backup was made.
    absent: list[str]


def restore(source: Path, target: Path, *, clock: Clock, ids: Ids) -> Restored:
    """Make a data folder of a backup; it is there whole, or not at all.

    Raises:
        RestoreRefused: the source is no whole backup, a file of it changed, or the target is not empty.
        NewerDatabase: a newer release made it.
        OSError: the target cannot be written.
    """
    manifest = _manifest(source)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RestoreRefused(f"{target} is there already and not empty: name a new folder with --data-dir.")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{ids.scratch()}.part")
    unfinished.mkdir(mode=0o700)
    try:
        for file in manifest["files"]:
            _copy(source, unfinished, file)
        going_on = _settle(unfinished, manifest["data_dir"], target, clock, ids)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    n_bytes = sum(file["bytes"] for file in manifest["files"])
    return Restored(len(manifest["files"]), n_bytes, manifest["created_at"], going_on, manifest["absent"])


def _manifest(source: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((source / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise RestoreRefused(
            f"{source} is no whole backup: its {MANIFEST} cannot be read. `tunesmith backup` makes one."
        ) from error
    if manifest.get("form") != FORM:
        raise RestoreRefused(
            f"{source} is a backup of form {manifest.get('form')}, and this Tunesmith knows {FORM}. Restore it "
            f"with Tunesmith {manifest.get('tunesmith')}, which made it."
        )
    return manifest


def _copy(source: Path, target: Path, file: dict[str, Any]) -> None:
    """Copy a file durably, and see that it is what was backed up."""
    inner = Path(file["name"])
    if inner.is_absolute() or ".." in inner.parts:
        raise RestoreRefused(f"{source / MANIFEST} names '{file['name']}', which is no file of a backup.")
    digest = hashlib.sha256()
    made = target / inner
    made.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        made.touch(mode=0o600, exist_ok=False)
        with (source / inner).open("rb") as read, made.open("wb") as write:
            for chunk in iter(lambda: read.read(_N_CHUNK_BYTES), b""):
                digest.update(chunk)
                write.write(chunk)
            write.flush()
            os.fsync(write.fileno())
    except FileNotFoundError as error:
        raise RestoreRefused(f"{source / inner} is missing: the backup is not whole. Take another one.") from error
    if digest.hexdigest() != file["sha256"]:
        raise RestoreRefused(f"{source / inner} is not the file that was backed up: its hash differs. Take another backup.")


def _settle(folder: Path, data_dir: str, target: Path, clock: Clock, ids: Ids) -> list[str]:
    """Let the rows be true where they are now: bases lie in the new folder, and nothing runs yet."""
    db = Database(f"sqlite:///{folder / DATABASE}", clock=clock, ids=ids)
    try:
        db.migrate()
        with db.begin() as tx:
            for base in models.bases(tx, _SCOPE):
                if Path(base.path).is_relative_to(data_dir):
                    path = target.absolute() / Path(base.path).relative_to(data_dir)
                    models.swap_base(tx, _SCOPE, base.name, path=str(path))
            going_on = list(_let_go(tx))
            audit.tell(tx, _SCOPE, RESTORED, DEFAULT_PROJECT, going_on)
            return going_on
    finally:
        db.close()


def _let_go(tx: Transaction) -> Iterator[str]:
    """Take every job from the process that it had where it was backed up; yield those that go on."""
    for job in jobs.occupied(tx, _SCOPE):
        status = job.status
        if status is Status.RUNNING:
            status = Status.PAUSED if job.desired is Desired.PAUSE else Status.QUEUED
        moved = jobs.swap(
            tx,
            _SCOPE,
            job.id,
            expect_status={job.status},
            status=status,
            handle=None,
            token_sha256=None,
            released_at=tx.clock.now(),
            not_before=0.0,
            estimated_finish=None,
        )
        if moved is None or status in TERMINAL:
            continue
        step = _newest_step(tx, job)
        paused = status is Status.PAUSED
        told = wording.stopped_short(moved.version, _REASON, step) if paused else wording.lost(job.attempt, _REASON, step)
        events.append(tx, _SCOPE, job.id, job.attempt, [told])
        yield job.id


def _newest_step(tx: Transaction, job: Job) -> int | None:
    found, _ = checkpoints.page(tx, _SCOPE, job.id, limit=1)
    return found[0].step if found else None
