"""Files: stored as they come, checked while they pass, deleted with their bytes once no job needs these."""

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final, Literal

import structlog

from tunesmith.core.clock import Clock
from tunesmith.core.errors import FileNotFound, InvalidRequest, OverQuota, StateConflict, StorageFull, TooLarge
from tunesmith.core.failpoint import failpoint
from tunesmith.core.ids import Ids
from tunesmith.core.settings import Settings
from tunesmith.data.jsonl import JsonlCheck, NotJsonl
from tunesmith.domain.file import File
from tunesmith.domain.ports import Blobs
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.services.idempotency import Also
from tunesmith.services.jobs import Jobs
from tunesmith.services.limits import Limits
from tunesmith.store import audit, files
from tunesmith.store.session import Database

PURPOSES: Final = ("fine-tune", "assistants", "batch", "user_data", "vision", "evals")
#: Files of this purpose go after thirty days unless the upload says otherwise.
BATCH_EXPIRES_AFTER_S: Final = 30 * 24 * 3600
N_SWEPT: Final = 100
#: Of the audit log, for a file whose time is over.
EXPIRED: Final = "file.expired"
_EVERYWHERE: Final = Everywhere("retention is the server's own work")

log = structlog.get_logger()


class Files:
    """The files of every project."""

    def __init__(
        self, *, db: Database, blobs: Blobs, clock: Clock, ids: Ids, settings: Settings, jobs: Jobs, limits: Limits
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._clock = clock
        self._ids = ids
        self._settings = settings
        self._jobs = jobs
        self._limits = limits

    def create(
        self,
        scope: Project,
        *,
        filename: str,
        purpose: str,
        chunks: Iterable[bytes],
        expires_after_s: int | None,
        also: Also[File] | None = None,
        max_bytes: int | None = None,
    ) -> File:
        """Store an upload and return its row; nothing is left of one that is refused. What `also` writes is in its commit.

        `max_bytes` takes the place of the limit of the settings.

        Raises:
            InvalidRequest: the purpose is not one that uploads have, the file is empty, or it is not JSONL but should be.
            TooLarge: the file is over the limit.
            StorageFull: the disk is full.
            OverQuota: the project has as many files, or bytes in them, as it may.
            StateConflict: `also` found that there shall be no file.
        """
        if purpose not in PURPOSES:
            raise InvalidRequest(f"'{purpose}' is not one of {list(PURPOSES)} - 'purpose'", param="purpose")
        self.check_room(scope, 0)
        file_id = self._ids.file()
        key = f"files/{file_id}"
        try:
            stored = self._blobs.put(key, self._checked(chunks, jsonl=purpose == "fine-tune", max_bytes=max_bytes))
        except NotJsonl as error:
            raise InvalidRequest(str(error), param="file") from error
        if expires_after_s is None and purpose == "batch":
            expires_after_s = BATCH_EXPIRES_AFTER_S
        created_at = self._clock.now()
        file = File(
            id=file_id,
            project_id=scope.project_id,
            organization_id=scope.organization_id,
            created_at=created_at,
            filename=filename,
            purpose=purpose,
            bytes=stored.bytes,
            sha256=stored.sha256,
            key=key,
            expires_at=None if expires_after_s is None else int(created_at) + expires_after_s,
        )
        failpoint("files.stored")
        try:
            with self._db.begin() as tx:
                self._limits.check_file(tx, scope, file.bytes)
                files.add(tx, scope, file)
                if also is not None:
                    also(tx, file)
        except (StorageFull, StateConflict, OverQuota):
            self._blobs.delete(key)
            raise
        log.info("file.created", file=file.id, purpose=purpose, bytes=file.bytes)
        return file

    def check_room(self, scope: Project, n_bytes: int) -> None:
        """Refuse a file of so many bytes before they come.

        Raises:
            OverQuota: the project has as many files, or bytes in them, as it may.
        """
        with self._db.read() as tx:
            self._limits.check_file(tx, scope, n_bytes)

    def get(self, scope: Project, file_id: str) -> File:
        """Return a file's row.

        Raises:
            FileNotFound: the project has no such file, or it has expired.
        """
        with self._db.read() as tx:
            file = files.get(tx, scope, file_id)
        if file is None:
            raise FileNotFound(file_id)
        return file

    def page(
        self, scope: Project, *, purpose: str | None, after: str | None, limit: int, order: Literal["asc", "desc"]
    ) -> tuple[list[File], bool]:
        """Return files by time of creation, and whether there are more.

        Raises:
            InvalidRequest: `after` names no file.
        """
        with self._db.read() as tx:
            return files.page(tx, scope, purpose=purpose, after=after, limit=limit, order=order)

    def open(self, scope: Project, file_id: str) -> tuple[File, BinaryIO]:
        """Return a file's row and its bytes as a stream, which the caller closes.

        Raises:
            FileNotFound: the project has no such file.
        """
        file = self.get(scope, file_id)
        try:
            return file, self._blobs.open(file.key)
        except FileNotFoundError as error:
            raise FileNotFound(file_id) from error

    def delete(self, scope: Project, file_id: str) -> None:
        """Delete a file: gone for its owner at once, its bytes as soon as no job needs them.

        A job that has not begun to train on it fails in the same commit; one that has goes on.

        Raises:
            FileNotFound: the project has no such file.
        """
        with self._db.begin() as tx:
            file = files.delete_one(tx, scope, file_id)
            if file is None:
                raise FileNotFound(file_id)
            failed = self._jobs.fail_without(tx, scope, file)
        failpoint("files.deleted")
        self._jobs.stop(failed)
        self.sweep()
        log.info("file.deleted", file=file_id, n_jobs_failed=len(failed))

    def sweep(self) -> int:
        """Remove deleted and expired files that no unfinished job uses, every project's; return how many that were."""
        with self._db.read() as tx:
            unneeded = files.unneeded(tx, _EVERYWHERE, limit=N_SWEPT)
        for file in unneeded:
            self._blobs.delete(file.key)
        failpoint("files.swept")
        if unneeded:
            with self._db.begin() as tx:
                for file in unneeded:
                    if files.forget(tx, _EVERYWHERE, file.id):
                        audit.tell(tx, _EVERYWHERE, EXPIRED, file.project_id, [file.id])
        return len(unneeded)

    def _checked(self, chunks: Iterable[bytes], *, jsonl: bool, max_bytes: int | None) -> Iterator[bytes]:
        """Yield the chunks while they are within the limit and, for training files, JSONL."""
        check = JsonlCheck(max_line_bytes=self._settings.max_line_bytes) if jsonl else None
        n_bytes, most = 0, max_bytes or self._settings.max_file_bytes
        for chunk in chunks:
            n_bytes += len(chunk)
            if n_bytes > most:
                raise TooLarge(f"The file is larger than the limit of {most} bytes.", param="file")
            if check is not None:
                check.feed(chunk)
            yield chunk
        if n_bytes == 0:
            raise InvalidRequest("The file is empty: 0 bytes arrived under 'file'. Send one with content.", param="file")
        if check is not None:
            check.finish()
