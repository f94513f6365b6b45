"""The queue over HTTP, `/tunesmith/v1/…/queue`: ours alone, since OpenAI does not tell why a job waits."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from tunesmith.api.deps import Caller, Served
from tunesmith.api.wire import Page, unix
from tunesmith.domain.queue import Place

router = APIRouter(prefix="/tunesmith/v1", tags=["Queue"])


class WireEntry(BaseModel):
    """A job's place in the queue; `position` 1 is next, and null where the job does not wait."""

    object: Literal["tunesmith.queue_entry"] = "tunesmith.queue_entry"
    job_id: str
    status: str
    position: int | None
    jobs_ahead: int | None
    reason: str | None
    message: str
    not_before: int | None


class WireSlots(BaseModel):
    """How many slots of a kind are taken, and how many there are; a null limit is none."""

    running: int
    running_in_project: int
    limit: int
    limit_per_project: int | None


class WireQueue(BaseModel):
    """The project's waiting jobs: those that wait for training first, each kind in order."""

    object: Literal["list"] = "list"
    data: list[WireEntry]
    has_more: bool
    training: WireSlots
    validation: WireSlots


@router.get("/fine_tuning/jobs/{job_id}/queue")
def get_queue_entry(job_id: str, served: Served, caller: Caller) -> WireEntry:
    """Tell what a job waits for, and behind how many."""
    return _wire(served.queue.get(caller.scope, job_id))


@router.get("/queue")
def list_queue(query: Annotated[Page, Query()], served: Served, caller: Caller) -> WireQueue:
    """List the waiting jobs in order, with the slots taken and the limits."""
    places, has_more, load = served.queue.page(caller.scope, after=query.after, limit=query.limit)
    limits = served.queue.limits
    return WireQueue(
        data=[_wire(place) for place in places],
        has_more=has_more,
        training=WireSlots(
            running=load.training,
            running_in_project=load.training_of_project,
            limit=limits.training_slots,
            limit_per_project=limits.of_project(caller.project_id),
        ),
        validation=WireSlots(
            running=load.validating,
            running_in_project=load.validating_of_project,
            limit=limits.validation_slots,
            limit_per_project=None,
        ),
    )


def _wire(place: Place) -> WireEntry:
    return WireEntry(
        job_id=place.job.id,
        status=place.job.status.value,
        position=None if place.n_ahead is None else place.n_ahead + 1,
        jobs_ahead=place.n_ahead,
        reason=place.reason,
        message=place.message,
        not_before=unix(place.not_before),
    )
