"""Whether the server lives (`/healthz`), whether it can serve (`/readyz`), and what a monitor reads of it (`/metrics`)."""

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


@router.get("/metrics")
async def metrics(served: Served, caller: Caller) -> Response:
    """Answer with every figure, in Prometheus's text format; whose projects they are of, an admin may see."""
    if not served.settings.metrics_public:
        caller.must_be_admin()
    text, media_type = await served.figures.exposition()
    return Response(text, media_type=media_type)
