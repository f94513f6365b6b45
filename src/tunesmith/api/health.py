"""Whether the server lives (`/healthz`) and whether it can serve (`/readyz`)."""

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from tunesmith.api.deps import Caller, Served

router = APIRouter(tags=["Health"])


@router.get("/healthz")
async def live() -> Response:
    """Answer as long as the process serves."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz")
async def ready(served: Served, caller: Caller) -> Response:
    """Answer once the database does; `sandbox` is the level of the sandbox of `python` graders, `probing` at first."""
    await run_in_threadpool(served.jobs.page, caller.scope, after=None, limit=1, metadata=None)
    return JSONResponse({"status": "ready", "sandbox": served.grading.sandbox_level(caller.scope)})
