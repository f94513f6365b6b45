"""Uploads over HTTP: `/v1/uploads`, files that come in parts."""

import tempfile
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from tunesmith.api.deps import Caller, Served, no_body
from tunesmith.api.described import form_of
from tunesmith.api.files import ExpiresAfter, sha256_of, wire_file
from tunesmith.api.multipart import chunks, read_form
from tunesmith.api.once import Repeatable, said_by_form
from tunesmith.api.wire import Text, WireRequest, unix
from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.file import File
from tunesmith.domain.upload import Part, Upload
from tunesmith.services.uploads import PART_BYTES

router = APIRouter(prefix="/v1/uploads", tags=["Uploads"])

N_MAX_PARTS: Final = 10_000


class CreateUpload(WireRequest):
    """The body of `POST /v1/uploads`."""

    filename: Annotated[Text, Field(min_length=1)]
    purpose: Text
    bytes: Annotated[int, Field(ge=1)]
    #: Looked at for its form alone: what a file is for says what it must hold.
    mime_type: Annotated[str, Field(pattern=r"^[\w.+-]+/[\w.+-]+(\s*;.*)?$")]
    expires_after: ExpiresAfter | None = None


class CompleteUpload(WireRequest):
    """The body of `POST /v1/uploads/{upload_id}/complete`."""

    part_ids: Annotated[list[Text], Field(min_length=1, max_length=N_MAX_PARTS)]
    md5: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{32}$")] | None = None


@router.post("")
def create_upload(body: CreateUpload, served: Served, caller: Caller) -> Response:
    """Begin an upload."""
    upload = served.uploads.create(
        caller.scope,
        filename=body.filename,
        purpose=body.purpose,
        n_bytes=body.bytes,
        expires_after_s=None if body.expires_after is None else body.expires_after.seconds,
    )
    return JSONResponse(wire_upload(upload))


@router.post("/{upload_id}/parts", openapi_extra=form_of("data"))
async def add_part(upload_id: str, request: Request, served: Served, caller: Caller, once: Repeatable) -> Response:
    """Upload a part; parts may come in any order and at the same time."""
    await run_in_threadpool(served.uploads.check_pending, caller.scope, upload_id)
    with tempfile.TemporaryFile(dir=served.settings.data_dir) as sink:
        form = await read_form(request, sink, max_file_bytes=PART_BYTES, part="data")
        if form.fields:
            name = next(iter(form.fields))
            raise InvalidRequest(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
        if once is not None and once.may_have_come:
            once.read(said_by_form({}, form.filename or "", await run_in_threadpool(sha256_of, sink)))
            replayed = await once.replay()
            if replayed is not None:
                return replayed
        part = await run_in_threadpool(served.uploads.add_part, caller.scope, upload_id, chunks(sink))
    return JSONResponse(wire_part(part))


@router.post("/{upload_id}/complete")
def complete_upload(upload_id: str, body: CompleteUpload, served: Served, caller: Caller) -> Response:
    """Make a file of the parts."""
    upload, file = served.uploads.complete(caller.scope, upload_id, body.part_ids, md5=body.md5)
    return JSONResponse(wire_upload(upload, file))


@router.post("/{upload_id}/cancel", dependencies=[Depends(no_body)])
def cancel_upload(upload_id: str, served: Served, caller: Caller) -> Response:
    """Give an upload up."""
    return JSONResponse(wire_upload(served.uploads.cancel(caller.scope, upload_id)))


def wire_upload(upload: Upload, file: File | None = None) -> dict[str, Any]:
    """Return the upload object; a completed one carries its file, the others have no such key, as recorded."""
    told = {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": unix(upload.created_at),
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.status,
        "expires_at": unix(upload.expires_at),
    }
    return told if file is None else {**told, "file": wire_file(file)}


def wire_part(part: Part) -> dict[str, Any]:
    """Return the part object."""
    return {"id": part.id, "object": "upload.part", "created_at": unix(part.created_at), "upload_id": part.upload_id}
