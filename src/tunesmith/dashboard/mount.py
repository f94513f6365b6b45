"""The dashboard as an ASGI app, which imports NiceGUI when its first page is asked for: until then it costs nothing."""

import asyncio
import os
import secrets
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

PATH: Final = "/dashboard"


class Dashboard:
    """The pages under `/dashboard`; they reach the API over HTTP at `api_url`, as any other client would."""

    def __init__(self, *, storage: Path) -> None:
        self.api_url = ""
        """The server's root, without `/v1`; set once it is known, before the first request."""
        self._storage = storage
        self._app: ASGIApp | None = None
        self._opening = asyncio.Lock()
        self._open = AsyncExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or one websocket."""
        if self._app is None:
            async with self._opening:
                if self._app is None:
                    self._app = await self._opened()
        await self._app(scope, receive, send)

    async def close(self) -> None:
        """Let the pages' tasks end."""
        await self._open.aclose()

    async def _opened(self) -> ASGIApp:
        # Nothing is kept there, but NiceGUI would name a folder of the working directory.
        os.environ["NICEGUI_STORAGE_PATH"] = str(self._storage)
        await asyncio.to_thread(__import__, "tunesmith.dashboard.pages")
        from fastapi import FastAPI
        from nicegui import ui

        from tunesmith.dashboard import pages
        from tunesmith.dashboard.house import House
        from tunesmith.dashboard.pages import missing

        house = House(self.api_url)
        pages.add(house)
        around = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        ui.run_with(
            around,
            root=missing.page(house),
            mount_path=PATH,
            title="Tunesmith",
            dark=None,
            language="en-US",
            favicon="🎛️",
            reconnect_timeout=30.0,
            storage_secret=secrets.token_urlsafe(32),
            session_middleware_kwargs={"session_cookie": "tunesmith-dashboard", "path": PATH, "same_site": "strict"},
            show_welcome_message=False,
        )
        await self._open.enter_async_context(around.router.lifespan_context(around))
        self._open.push_async_callback(house.close)
        return around
