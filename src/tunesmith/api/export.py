"""Models as files over HTTP, `GET /tunesmith/v1/models/{name}/export`: a tar of a folder or a GGUF file, as it is made."""

import asyncio
from typing import Annotated, Final, Literal

import structlog
from fastapi import APIRouter, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tunesmith.api.chat import CLIENT_LEFT, unless_gone
from tunesmith.api.deps import Caller, Served
from tunesmith.api.wire import WireQuery
from tunesmith.core.errors import Unavailable
from tunesmith.services.exporting import Export

router = APIRouter(tags=["Export"])
log = structlog.get_logger()

#: A client that takes nothing for so long is taken to be gone.
STALLED_S: Final = 300.0


class ExportQuery(WireQuery):
    """The form, and for a GGUF file the type of its numbers."""

    format: Literal["adapter", "merged", "gguf"]
    type: Literal["auto", "bf16", "f16", "f32"] = "auto"


@router.get("/tunesmith/v1/models/{model:path}/export")
async def export_model(
    model: str, query: Annotated[ExportQuery, Query()], request: Request, served: Served, caller: Caller
) -> Response:
    """Write a tuned model or a base in the form that others load."""
    begun = await unless_gone(request.receive, served.exports.open(caller.scope, model, query.format, query.type))
    return Response(status_code=CLIENT_LEFT) if begun is None else Download(begun)


class Download(Response):
    """An export's bytes; it is closed as soon as the client is gone, and cut off where it breaks off."""

    def __init__(self, export: Export) -> None:
        self._export = export
        self.status_code = 200
        self.background = None
        self.body = b""
        self.media_type = export.media_type
        self.init_headers(
            {
                "content-length": str(export.n_bytes),
                "content-disposition": f'attachment; filename="{export.filename}"',
            }
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send the bytes while watching for the client's leave."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await unless_gone(receive, self._send_all(send))
        except (Unavailable, TimeoutError) as error:
            log.warning("export.broken", file=self._export.filename, reason=str(error) or "the client takes nothing")
        finally:
            await self._export.close()

    async def _send_all(self, send: Send) -> None:
        async for chunk in self._export.chunks():
            async with asyncio.timeout(STALLED_S):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
