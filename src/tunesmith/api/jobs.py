"""Fine-tuning jobs over HTTP: `/v1/fine_tuning/jobs`, and the job, event and checkpoint as the wire shows them."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from tunesmith.api.deps import Caller, Served, no_body
from tunesmith.api.described import query_of
from tunesmith.api.job_schema import CreateJobRequest
from tunesmith.api.multipart import form_fields
from tunesmith.api.once import Repeatable
from tunesmith.api.reads import read
from tunesmith.api.refusals import explain
from tunesmith.api.wire import Page, page, unix
from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.job import Checkpoint, CreateJob, Event, Job
from tunesmith.graders.grader import Grader
from tunesmith.services.all import Services

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["Fine-tuning"])


class ListJobs(Page):
    """Which jobs to list; `metadata` holds pairs that must all be there, or `null` for jobs without any."""

    metadata: dict[str, str] | Literal["null"] | None = None


class ListCheckpoints(Page):
    """Which checkpoints to list."""

    limit: int = Field(default=10, ge=1, le=Page.model_fields["limit"].metadata[1].le)


async def listing(request: Request) -> ListJobs:
    """Read the query of the list of jobs with its bracketed metadata."""
    said = [name for name in request.query_params if name == "metadata" or name.startswith("metadata[")]
    if "metadata" in said and len(said) > 1:
        raise InvalidRequest("'metadata=null' and 'metadata[key]=value' cannot be combined.", param="metadata")
    if said == ["metadata"] and request.query_params["metadata"] != "null":
        raise InvalidRequest("'metadata' is filtered by 'metadata[key]=value', or by 'metadata=null'.", param="metadata")
    fields = form_fields(request.query_params.multi_items())
    try:
        return ListJobs.model_validate(fields)
    except ValidationError as error:
        raise explain([{**fault, "loc": ("query", *fault["loc"])} for fault in error.errors()]) from error


@router.post("")
async def create_job(body: CreateJobRequest, served: Served, caller: Caller, once: Repeatable) -> Response:
    """Create a job; a grader is checked before, which can take as long as loading its source in the sandbox."""
    request, grader = asked_for(body, served)
    if grader is not None:
        await served.rewards.check(caller.scope, request, grader)
    also = None if once is None else once.also(wire_job)
    return JSONResponse(wire_job(await run_in_threadpool(served.jobs.create, caller.scope, request, also=also)))


def asked_for(body: CreateJobRequest, served: Services) -> tuple[CreateJob, Grader | None]:
    """Return what a body asks for, and the grader of a reinforcement job, named.

    Raises:
        InvalidRequest: its parts do not go together.
    """
    if body.hyperparameters is not None and body.method is not None:
        raise InvalidRequest(
            "'hyperparameters' cannot stand beside 'method': put them into the method's own block.", param="hyperparameters"
        )
    config = body.method_config()
    grader = None
    if body.reinforcement is not None:
        grader = served.grading.named(body.reinforcement.grader)
        config["grader"] = grader.model_dump(exclude_unset=True)
    request = CreateJob(
        model=body.model,
        training_file=body.training_file,
        validation_file=body.validation_file,
        suffix=body.suffix,
        seed=body.seed,
        method=body.method_type,
        method_config=config,
        integrations=[integration.model_dump() for integration in body.integrations or []],
        metadata=body.metadata,
    )
    return request, grader


@router.get("", openapi_extra=query_of(ListJobs))
async def list_jobs(query: Annotated[ListJobs, Depends(listing)], served: Served, caller: Caller) -> Response:
    """List jobs, newest first."""
    after, limit, metadata = query.after, query.limit, query.metadata
    jobs, has_more = await read(served, limit, served.jobs.page, caller.scope, after=after, limit=limit, metadata=metadata)
    return JSONResponse(page([wire_job(job) for job in jobs], has_more=has_more))


@router.get("/{job_id}")
async def get_job(job_id: str, served: Served, caller: Caller) -> Response:
    """Retrieve a job."""
    return JSONResponse(wire_job(await read(served, 1, served.jobs.get, caller.scope, job_id)))


@router.post("/{job_id}/cancel", dependencies=[Depends(no_body)])
def cancel_job(job_id: str, served: Served, caller: Caller) -> Response:
    """Cancel a job at once."""
    return JSONResponse(wire_job(served.jobs.cancel(caller.scope, job_id)))


@router.post("/{job_id}/pause", dependencies=[Depends(no_body)])
async def pause_job(job_id: str, served: Served, caller: Caller) -> Response:
    """Pause a job; one that trains is paused once its checkpoint is complete."""
    return JSONResponse(wire_job(await served.pauses.pause(caller.scope, job_id)))


@router.post("/{job_id}/resume", dependencies=[Depends(no_body)])
def resume_job(job_id: str, served: Served, caller: Caller) -> Response:
    """Let a paused job wait for its turn again."""
    return JSONResponse(wire_job(served.pauses.resume(caller.scope, job_id)))


@router.get("/{job_id}/events")
async def list_events(job_id: str, query: Annotated[Page, Query()], served: Served, caller: Caller) -> Response:
    """List a job's events, newest first."""
    after, limit = query.after, query.limit
    events, has_more = await read(served, limit, served.jobs.events, caller.scope, job_id, after=after, limit=limit)
    return JSONResponse(page([wire_event(event) for event in events], has_more=has_more))


@router.get("/{job_id}/checkpoints")
async def list_checkpoints(
    job_id: str, query: Annotated[ListCheckpoints, Query()], served: Served, caller: Caller
) -> Response:
    """List a job's checkpoints, highest step first."""
    after, limit = query.after, query.limit
    kept, has_more = await read(served, limit, served.jobs.checkpoints, caller.scope, job_id, after=after, limit=limit)
    return JSONResponse(page([wire_checkpoint(checkpoint) for checkpoint in kept], has_more=has_more, ends=True))


def wire_job(job: Job) -> dict[str, Any]:
    """Return the job object: the keys of the recordings in their order, `auto` replaced once validation has resolved it."""
    method = wire_method(job)
    return {
        "object": "fine_tuning.job",
        "id": job.id,
        "model": job.model,
        "created_at": unix(job.created_at),
        "finished_at": unix(job.finished_at),
        "fine_tuned_model": job.fine_tuned_model,
        "organization_id": job.organization_id,
        "result_files": job.result_files,
        "status": job.status.value,
        "validation_file": job.validation_file,
        "training_file": job.training_file,
        "hyperparameters": method["supervised"]["hyperparameters"] if job.method == "supervised" else None,
        "trained_tokens": job.trained_tokens,
        "error": _wire_error(job.error),
        "user_provided_suffix": job.suffix,
        "seed": job.seed,
        "estimated_finish": unix(job.estimated_finish),
        "integrations": [_wire_integration(job, each) for each in job.integrations],
        "metadata": job.metadata,
        "usage_metrics": None,
        "shared_with_openai": False,
        "eval_id": None,
        "method": method,
    }


def wire_method(job: Job) -> dict[str, Any]:
    """Return a job's method with its block, `auto` replaced once it is resolved."""
    hyperparameters = {**job.method_config["hyperparameters"], **(job.resolved or {})}
    return {"type": job.method, job.method: {**job.method_config, "hyperparameters": hyperparameters}}


def _wire_integration(job: Job, integration: dict[str, Any]) -> dict[str, Any]:
    """Return an integration as it was asked for, with the run's id as in the published example."""
    said = {name: value for name, value in integration["wandb"].items() if name != "tags" or value is not None}
    return {**integration, "wandb": {**said, "run_id": job.id}}


def _wire_error(error: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if error is None else {key: error.get(key) for key in ("code", "message", "param")}


def wire_event(event: Event) -> dict[str, Any]:
    """Return the event object."""
    return {
        "object": "fine_tuning.job.event",
        "id": event.id,
        "created_at": unix(event.created_at),
        "level": event.level,
        "message": event.message,
        "data": event.data,
        "type": event.type,
    }


def wire_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the checkpoint object."""
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": checkpoint.id,
        "created_at": unix(checkpoint.created_at),
        "fine_tuned_model_checkpoint": checkpoint.model_name,
        "fine_tuning_job_id": checkpoint.job_id,
        "metrics": checkpoint.metrics,
        "step_number": checkpoint.step,
    }
