"""What training sampled, and what it changed, under `/tunesmith/v1/fine_tuning/jobs/{id}`: ours alone."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from tunesmith.api.deps import Caller, Served
from tunesmith.api.wire import Page, ascii_json, page
from tunesmith.services.rollouts import Split

router = APIRouter(prefix="/tunesmith/v1/fine_tuning/jobs/{job_id}", tags=["Fine-tuning"])


class ListRollouts(Page):
    """Which rollouts to list: those of a step, the newest one unless told, of both files or of one."""

    step: int | None = Field(default=None, ge=0)
    split: Split | None = None


@router.get("/rollouts")
def list_rollouts(job_id: str, query: Annotated[ListRollouts, Query()], served: Served, caller: Caller) -> Response:
    """List the answers that a step sampled, each with its grades; `steps` are those that have some."""
    found, has_more, step, steps = served.rollouts.page(
        caller.scope, job_id, step=query.step, split=query.split, after=query.after, limit=query.limit
    )
    data = [{**rollout.data, "object": "tunesmith.rollout", "id": rollout.id, "job_id": job_id} for rollout in found]
    return ascii_json({**page(data, has_more=has_more), "step": step, "steps": steps})


@router.get("/comparison")
def get_comparison(job_id: str, served: Served, caller: Caller) -> Response:
    """Retrieve held-out rows as base and tuned model answer them; without rows as long as the run has not ended."""
    job, comparison = served.rollouts.comparison(caller.scope, job_id)
    found = comparison or {"rows": [], "base": job.base, "seconds": None}
    told = {"object": "tunesmith.comparison", "job_id": job.id, "fine_tuned_model": job.fine_tuned_model}
    return ascii_json({**found, **told})
