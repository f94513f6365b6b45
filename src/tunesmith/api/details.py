"""A job as its page shows it, `/tunesmith/v1/fine_tuning/jobs/{id}` and its metrics: ours alone."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from tunesmith.api.deps import Caller, Served
from tunesmith.api.wire import WireQuery, ascii_json, unix
from tunesmith.services.details import N_POINTS, requested

router = APIRouter(prefix="/tunesmith/v1/fine_tuning/jobs/{job_id}", tags=["Fine-tuning"])


class ListMetrics(WireQuery):
    """Which metrics to list: those of the steps after `after`, thinned out to about `points` of them."""

    after: int | None = Field(default=None, ge=0, le=2**53)
    points: int = Field(default=N_POINTS, ge=2, le=100_000)


@router.get("")
def get_details(job_id: str, served: Served, caller: Caller) -> Response:
    """Retrieve what the job object does not tell: hyperparameters as asked and as resolved, counts, steps, attempts."""
    job, last_step = served.details.job(caller.scope, job_id)
    counts = job.counts or {}
    told: dict[str, Any] = {
        "object": "tunesmith.job_details",
        "id": job.id,
        "base": job.base,
        "requested": requested(job),
        "resolved": job.resolved,
        "step": last_step,
        "total_steps": counts.get("total_steps"),
        "counts": job.counts,
        "attempt": job.attempt,
        "lost_attempts": job.lost_attempts,
        "started_at": unix(job.started_at),
        "pins": job.pins,
    }
    return ascii_json(told)


@router.get("/metrics")
def list_metrics(job_id: str, query: Annotated[ListMetrics, Query()], served: Served, caller: Caller) -> Response:
    """List the job's metrics by step: the columns of its result file that have values, thinned out for a screen."""
    curves = served.details.curves(caller.scope, job_id, after=query.after, points=query.points)
    told: dict[str, Any] = {
        "object": "tunesmith.metrics",
        "job_id": job_id,
        "method": curves.job.method,
        "columns": ["step", *curves.columns],
        "rows": curves.rows,
        "n_steps": curves.n_steps,
    }
    return ascii_json(told)
