"""Downloads in the name of this browser's key: the server's bytes passed on as they come."""

import re
from collections.abc import AsyncGenerator
from typing import Final

from fastapi import Request
from nicegui import app
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from tunesmith.dashboard.api import Refused
from tunesmith.dashboard.house import House

#: What may be downloaded so: files and exports, nothing else that the key opens.
PATHS: Final = re.compile(r"v1/files/[A-Za-z0-9_-]+/content|tunesmith/v1/models/[^?#]+/export")


def add(house: House) -> None:
    """Give the page its path."""

    @app.get("/raw/{path:path}")
    async def raw(path: str, request: Request) -> Response:
        if not PATHS.fullmatch(path) or "/../" in f"/{path}/":
            return PlainTextResponse("There is nothing to download here.", 404)
        query = f"?{request.url.query}" if request.url.query else ""
        download = house.api(browser=str(request.session.get("id"))).download(f"/{path}{query}")
        try:
            headers = await anext(download)
        except Refused as error:
            return PlainTextResponse(str(error), error.status or 502)
        assert isinstance(headers, dict)
        return StreamingResponse(_bytes(download), headers=headers)


async def _bytes(download: AsyncGenerator[dict[str, str] | bytes]) -> AsyncGenerator[bytes]:
    async for chunk in download:
        assert isinstance(chunk, bytes)
        yield chunk
