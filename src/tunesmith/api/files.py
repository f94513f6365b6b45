"""Files over HTTP: `/v1/files`; a body goes to disk as it comes and is never held in memory."""

import base64
import hashlib
import tempfile
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO, Final, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from pydantic import Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from tunesmith.api.deps import Caller, Principal, Served
from tunesmith.api.described import form_of
from tunesmith.api.multipart import Form, chunks, form_fields, read_form
from tunesmith.api.once import Once, Repeatable, said_by_form
from tunesmith.api.reads import read
from tunesmith.api.refusals import explain
from tunesmith.api.wire import N_PAGE, WireQuery, WireRequest, page, unix
from tunesmith.domain.file import File
from tunesmith.services.all import Services

router = APIRouter(prefix="/v1/files", tags=["Files"])

PURPOSE_OF_RESULTS: Final = "fine-tune-results"
#: A multiple of three, so that the base64 of the pieces joined is that of the whole.
PIECE_BYTES: Final = 768 * 1024


class ExpiresAfter(WireRequest):
    """When a file goes: seconds after its creation."""

    anchor: Literal["created_at"]
    #: A form has no numbers, only their digits.
    seconds: Annotated[int, Field(ge=3600, le=2_592_000, strict=False)]


class CreateFile(WireRequest):
    """The fields of the form beside `file`."""

    purpose: str
    expires_after: ExpiresAfter | None = None


class ListFiles(WireQuery):
    """Which files to list."""

    purpose: str | None = None
    after: str | None = None
    limit: int = Field(default=N_PAGE, ge=1, le=N_PAGE)
    order: Literal["asc", "desc"] = "desc"


@router.post("", openapi_extra=form_of("file", CreateFile))
async def create_file(request: Request, served: Served, caller: Caller, once: Repeatable) -> Response:
    """Upload a file."""
    with tempfile.TemporaryFile(dir=served.settings.data_dir) as sink:
        form = await read_form(request, sink, max_file_bytes=served.settings.max_file_bytes)
        if once is not None and once.may_have_come:
            once.read(_said(form, await run_in_threadpool(sha256_of, sink)))
            replayed = await once.replay()
            if replayed is not None:
                return replayed
        file = await run_in_threadpool(_create, served, caller, form, sink, once)
    return JSONResponse(wire_file(file))


def sha256_of(sink: BinaryIO) -> str:
    """Return the SHA-256 of a file that is at its start, and is again afterwards."""
    digest = hashlib.sha256()
    for piece in chunks(sink):
        digest.update(piece)
    sink.seek(0)
    return digest.hexdigest()


def _said(form: Form, sha256: str) -> bytes:
    return said_by_form(form.fields, form.filename or "file", sha256)


def _create(served: Services, caller: Principal, form: Form, sink: BinaryIO, once: Once | None) -> File:
    fields = form_fields(form.fields.items())
    try:
        wanted = CreateFile.model_validate(fields)
    except ValidationError as error:
        raise explain([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()], fields) from error
    return served.files.create(
        caller.scope,
        filename=form.filename or "file",
        purpose=wanted.purpose,
        chunks=chunks(sink),
        expires_after_s=None if wanted.expires_after is None else wanted.expires_after.seconds,
        also=None if once is None else once.also(wire_file, said=lambda file: _said(form, file.sha256)),
    )


@router.get("")
async def list_files(query: Annotated[ListFiles, Query()], served: Served, caller: Caller) -> Response:
    """List files, newest first unless `order` says otherwise."""
    after, limit = query.after, query.limit
    files, has_more = await read(
        served, limit, served.files.page, caller.scope, purpose=query.purpose, after=after, limit=limit, order=query.order
    )
    return JSONResponse(page([wire_file(file) for file in files], has_more=has_more, ends=True))


@router.get("/{file_id}")
async def get_file(file_id: str, served: Served, caller: Caller) -> Response:
    """Retrieve a file object."""
    return JSONResponse(wire_file(await read(served, 1, served.files.get, caller.scope, file_id)))


@router.delete("/{file_id}")
def delete_file(file_id: str, served: Served, caller: Caller) -> Response:
    """Delete a file."""
    served.files.delete(caller.scope, file_id)
    return JSONResponse({"object": "file", "deleted": True, "id": file_id})


@router.get("/{file_id}/content")
def file_content(file_id: str, served: Served, caller: Caller) -> Response:
    """Return the bytes of a file."""
    file, source = served.files.open(caller.scope, file_id)
    encoded = served.settings.results_base64 and file.purpose == PURPOSE_OF_RESULTS
    length = 4 * ((file.bytes + 2) // 3) if encoded else file.bytes
    headers = {
        "content-length": str(length),
        "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
    }
    return StreamingResponse(_pieces(source, encoded=encoded), media_type="application/octet-stream", headers=headers)


def _pieces(source: BinaryIO, *, encoded: bool) -> Iterator[bytes]:
    with source:
        while piece := source.read(PIECE_BYTES):
            yield base64.b64encode(piece) if encoded else piece


def wire_file(file: File) -> dict[str, Any]:
    """Return the file object with the keys and nulls of the recordings."""
    return {
        "object": "file",
        "id": file.id,
        "purpose": file.purpose,
        "filename": file.filename,
        "bytes": file.bytes,
        "created_at": unix(file.created_at),
        "expires_at": unix(file.expires_at),
        "status": "processed",
        "status_details": None,
    }
