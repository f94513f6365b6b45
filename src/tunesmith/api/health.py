"""Whether the server lives (`/healthz`) and whether it can serve (`/readyz`)."""

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from tunesmith.api.deps import Caller, Served

router = APIRouter(tags=["Health"])


@router.get("/healthz")
async def live() -> Response:
    """Answer as long as the process serves."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz")
def ready(served: Served, caller: Caller) -> Response:
    """Answer once the database does."""
    served.jobs.page(caller.scope, after=None, limit=1, metadata=None)
    return JSONResponse({"status": "ready"})
