"""Uploads in parts: each part a blob of its own as it comes; completing an upload puts them together to an ordinary file."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Final

import structlog

from tunesmith.core.clock import Clock
from tunesmith.core.errors import InvalidRequest, NotFound, StateConflict, TooLarge
from tunesmith.core.failpoint import failpoint
from tunesmith.core.ids import Ids
from tunesmith.core.settings import Settings
from tunesmith.domain.file import File
from tunesmith.domain.ports import Blobs
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.domain.upload import Part, Upload
from tunesmith.services.files import Files
from tunesmith.store import audit, uploads
from tunesmith.store.session import Database, Transaction

#: Of OpenAI's service: how long an upload may take, and how large a part may be.
LIFE_S: Final = 3600
PART_BYTES: Final = 64 * 1024 * 1024
PURPOSES: Final = ("assistants", "batch", "fine-tune", "vision")
N_SWEPT: Final = 100
#: Of the audit log, for an upload whose hour is over.
EXPIRED: Final = "upload.expired"
_PIECE_BYTES: Final = 1024 * 1024
_EVERYWHERE: Final = Everywhere("retention is the server's own work")

log = structlog.get_logger()


class UploadNotFound(NotFound):
    """No such upload (404)."""

    param = "upload_id"

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"No such Upload object: {upload_id}")


class Uploads:
    """The uploads of every project."""

    def __init__(self, *, db: Database, blobs: Blobs, clock: Clock, ids: Ids, settings: Settings, files: Files) -> None:
        self._db = db
        self._blobs = blobs
        self._clock = clock
        self._ids = ids
        self._settings = settings
        self._files = files

    def create(self, scope: Project, *, filename: str, purpose: str, n_bytes: int, expires_after_s: int | None) -> Upload:
        """Begin an upload, which is pending for an hour.

        Raises:
            InvalidRequest: the purpose is not one that uploads have.
            TooLarge: it is to be larger than the limit.
            OverQuota: the project has as many files, or bytes in them, as it may.
        """
        if purpose not in PURPOSES:
            raise InvalidRequest(f"'{purpose}' is not one of {list(PURPOSES)} - 'purpose'", param="purpose")
        most = self._settings.max_upload_bytes
        if n_bytes > most:
            raise TooLarge(f"'bytes' {n_bytes} is larger than the limit of {most} bytes for an upload.", param="bytes")
        self._files.check_room(scope, n_bytes)
        now = self._clock.now()
        upload = Upload(
            id=self._ids.upload(),
            project_id=scope.project_id,
            organization_id=scope.organization_id,
            created_at=now,
            expires_at=int(now) + LIFE_S,
            filename=filename,
            purpose=purpose,
            bytes=n_bytes,
            expires_after_s=expires_after_s,
        )
        with self._db.begin() as tx:
            uploads.add(tx, scope, upload)
        log.info("upload.created", upload=upload.id, bytes=n_bytes)
        return upload

    def check_pending(self, scope: Project, upload_id: str) -> Upload:
        """Return an upload that takes parts.

        Raises:
            UploadNotFound: the project has no such upload.
            StateConflict: it is over.
        """
        with self._db.read() as tx:
            upload = uploads.get(tx, scope, upload_id)
        if upload is None:
            raise UploadNotFound(upload_id)
        if upload.status != "pending":
            raise _over(upload)
        return upload

    def add_part(self, scope: Project, upload_id: str, chunks: Iterable[bytes]) -> Part:
        """Store a part and return it.

        Raises:
            UploadNotFound, StateConflict: as `check_pending`, at its begin or at its end.
            InvalidRequest: the part is empty.
            TooLarge: the upload has received more than parts that are sent again explain.
        """
        upload = self.check_pending(scope, upload_id)
        part = Part(self._ids.part(), upload.id, scope.project_id, self._clock.now(), 0)
        part = replace(part, bytes=self._blobs.put(part.key, chunks).bytes)
        failpoint("uploads.part_stored")
        # every part may come twice, since an answer can be lost
        most = 2 * upload.bytes + PART_BYTES
        kept = False
        try:
            if part.bytes == 0:
                raise InvalidRequest("The part is empty: 0 bytes arrived under 'data'.", param="data")
            with self._db.begin() as tx:
                kept = uploads.add_part(tx, scope, part, most_bytes=most)
        finally:
            if not kept:
                self._blobs.delete(part.key)
        if not kept:
            self.check_pending(scope, upload_id)
            raise TooLarge(
                f"Upload {upload.id} is of {upload.bytes} bytes and has received {upload.received_bytes} already: it takes "
                "no more. Complete it with the parts that are right, or cancel it.",
                param="data",
            )
        return part

    def complete(self, scope: Project, upload_id: str, part_ids: Sequence[str], *, md5: str | None) -> tuple[Upload, File]:
        """Put the parts together in this order and return the upload with its file; asked again, answer the same again.

        Raises:
            UploadNotFound: the project has no such upload.
            StateConflict: it was cancelled, has expired, or was completed of other parts.
            InvalidRequest: parts are unknown or named twice, the bytes are not as many as announced or have another md5
                sum, or the file is refused as `Files.create` refuses one. The upload stays pending.
        """
        with self._db.read() as tx:
            known = uploads.get(tx, scope, upload_id)
            there = {part.id: part for part in uploads.parts(tx, scope, upload_id)}
        upload, file = self._known(scope, upload_id, known, part_ids)
        if file is not None:
            return upload, file
        chosen = _chosen(upload, there, part_ids)
        ending: list[Upload] = []

        def ended(tx: Transaction, file: File) -> None:
            over = uploads.end(tx, scope, upload_id, "completed", file_id=file.id, part_ids=part_ids)
            if over is None:
                raise StateConflict(f"Upload {upload_id} ended while it was put together.")
            ending.append(over)

        try:
            file = self._files.create(
                scope,
                filename=upload.filename,
                purpose=upload.purpose,
                chunks=self._bytes(chosen, md5),
                expires_after_s=upload.expires_after_s,
                also=ended,
                max_bytes=self._settings.max_upload_bytes,
            )
        except (StateConflict, FileNotFoundError):
            # somebody else was faster, and took the parts away; one who completed it just so answers for both
            with self._db.read() as tx:
                known = uploads.get(tx, scope, upload_id)
            over, made = self._known(scope, upload_id, known, part_ids)
            if made is None:
                raise
            return over, made
        failpoint("uploads.completed")
        self._drop_parts(ending[0])
        return ending[0], file

    def _known(
        self, scope: Project, upload_id: str, upload: Upload | None, part_ids: Sequence[str]
    ) -> tuple[Upload, File | None]:
        """Return an upload, with its file where it was completed of just these parts.

        Raises:
            UploadNotFound, StateConflict: there is none; it is over in another way.
            FileNotFound: the file was deleted.
        """
        if upload is None:
            raise UploadNotFound(upload_id)
        if upload.status == "completed" and upload.part_ids == list(part_ids):
            return upload, self._files.get(scope, upload.file_id or "")
        if upload.status != "pending":
            raise _over(upload)
        return upload, None

    def cancel(self, scope: Project, upload_id: str) -> Upload:
        """End a pending upload without a file; a cancelled one stays as it is.

        Raises:
            UploadNotFound: the project has no such upload.
            StateConflict: it was completed or has expired.
        """
        with self._db.begin() as tx:
            over = uploads.end(tx, scope, upload_id, "cancelled")
            known = over or uploads.get(tx, scope, upload_id)
        if known is None:
            raise UploadNotFound(upload_id)
        if known.status != "cancelled":
            raise _over(known)
        if over is not None:
            self._drop_parts(over)
        return known

    def sweep(self) -> int:
        """Remove the parts of uploads that are over, every project's; return how many uploads that were."""
        with self._db.read() as tx:
            over = uploads.ended(tx, _EVERYWHERE, limit=N_SWEPT)
        for upload in over:
            self._drop_parts(upload)
        return len(over)

    def _drop_parts(self, upload: Upload) -> None:
        self._blobs.delete(upload.prefix)
        failpoint("uploads.parts_deleted")
        with self._db.begin() as tx:
            if uploads.forget_parts(tx, _EVERYWHERE, upload) and upload.status == "expired":
                audit.tell(tx, _EVERYWHERE, EXPIRED, upload.project_id, [upload.id])

    def _bytes(self, chosen: Sequence[Part], md5: str | None) -> Iterator[bytes]:
        digest = hashlib.md5(usedforsecurity=False)
        for part in chosen:
            with closing(self._blobs.open(part.key)) as source:
                while piece := source.read(_PIECE_BYTES):
                    digest.update(piece)
                    yield piece
        if md5 is not None and digest.hexdigest() != md5.lower():
            raise InvalidRequest(
                f"The parts in this order have the md5 sum {digest.hexdigest()}, and 'md5' is '{md5}'. Check the order of "
                "'part_ids', or send again the part that went wrong.",
                param="md5",
            )


def _over(upload: Upload) -> StateConflict:
    return StateConflict(f"Upload {upload.id} is {upload.status}, so this cannot be done any more. Create another upload.")


def _chosen(upload: Upload, there: dict[str, Part], part_ids: Sequence[str]) -> list[Part]:
    """Return the parts of a list of ids.

    Raises:
        InvalidRequest: it names one twice or one that is none of the upload, or they have not the announced bytes.
    """
    for index, part_id in enumerate(part_ids):
        wrong = "is no part of this upload" if part_id not in there else "is there twice"
        if part_id not in there or part_id in part_ids[:index]:
            raise InvalidRequest(f"'part_ids[{index}]' '{part_id}' {wrong}.", param="part_ids")
    chosen = [there[part_id] for part_id in part_ids]
    n_bytes = sum(part.bytes for part in chosen)
    if n_bytes != upload.bytes:
        raise InvalidRequest(
            f"The {len(chosen)} parts have {n_bytes} bytes together, and the upload was announced with {upload.bytes}.",
            param="part_ids",
        )
    return chosen
