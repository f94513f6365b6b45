"""Paths of the contract that this release does not serve yet: each answers 400 `not_available`, saying what it would be.

A path leaves this list when its resource gets a file of its own. What is not planned is no route at all, and so a 404.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import APIRouter

from tunesmith.core.errors import NotAvailable

PATHS: Final[tuple[tuple[str, str, str], ...]] = (("POST", "/responses/compact", "Compacting a conversation"),)


def make_router() -> APIRouter:
    """Return the routes of the list."""
    router = APIRouter(prefix="/v1", include_in_schema=False)
    for verb, path, what in PATHS:
        router.add_api_route(path, _refusal(f"{what} ({verb} /v1{path.replace(':path', '')})"), methods=[verb])
    return router


def _refusal(what: str) -> Callable[[], Awaitable[None]]:
    async def refuse() -> None:
        raise NotAvailable(f"{what} is not available in this release.")

    return refuse
