"""A backup of the whole installation over HTTP, `POST /tunesmith/v1/backup`: a tar, written while it is sent.

The server writes to no path that a request names: whoever asks gets the bytes, and puts them where they may.
"""

from collections.abc import Iterator

import structlog
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from tunesmith.api.deps import Admin, Served
from tunesmith.api.wire import WireRequest

router = APIRouter(tags=["Backup"])
log = structlog.get_logger()


class CreateBackup(WireRequest):
    """What goes into the backup."""

    #: The weights of bases that were downloaded, which can be downloaded again.
    bases: bool = True


@router.post("/tunesmith/v1/backup")
async def create_backup(served: Served, caller: Admin, body: CreateBackup | None = None) -> Response:  # noqa: ARG001 - it is looked at
    """Send a tar of the database, the files, the checkpoints and the keys, as they are at one moment."""
    parts = served.backups.stream(bases=body is None or body.bases)
    first = await run_in_threadpool(next, parts)  # what cannot be backed up is told by the status
    return StreamingResponse(_told(first, parts), media_type="application/x-tar")


def _told(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    """Yield all parts, and log that they are out."""
    n_bytes = len(first)
    yield first
    for part in rest:
        n_bytes += len(part)
        yield part
    log.info("backup.sent", bytes=n_bytes)
