"""Integrations over HTTP, of our own: the key of Weights & Biases, which is never shown, and where a job is told."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import JSONResponse, Response

from tunesmith.api.deps import Admin, Caller, Served
from tunesmith.api.wire import Text, WireQuery, WireRequest, unix
from tunesmith.core.errors import JobNotFound
from tunesmith.domain.integration import Integration
from tunesmith.domain.recording import NAMES, SETTINGS, Recording, Tracker

router = APIRouter(tags=["Integrations"])

PATH: Final = "/tunesmith/v1/integrations"


class Register(WireRequest):
    """The body of `PUT /tunesmith/v1/integrations/wandb`."""

    api_key: Annotated[Text, Field(min_length=1, max_length=512, pattern=r"^[!-~]+$")]
    #: Of a server of one's own.
    base_url: Annotated[Text, Field(min_length=1, max_length=2048)] | None = None


@router.get(PATH)
def list_integrations(query: Annotated[WireQuery, Query()], served: Served, caller: Admin) -> Response:  # noqa: ARG001 - refuses what is unknown
    """List what the organisation has registered, and the trackers as they stand on this server."""
    found = served.integrations.registered(caller.scope)
    trackers = [wire_tracker(each) for each in served.integrations.trackers()]
    data = [wire_integration(each) for each in found]
    return JSONResponse({"object": "list", "data": data, "has_more": False, "trackers": trackers})


@router.put(f"{PATH}/{{integration}}")
def put_integration(integration: str, body: Register, served: Served, caller: Admin) -> Response:
    """Register the organisation's key, in the place of the one before."""
    made = served.integrations.register(caller.scope, integration, api_key=body.api_key, base_url=body.base_url)
    return JSONResponse(wire_integration(made))


@router.delete(f"{PATH}/{{integration}}")
def delete_integration(integration: str, served: Served, caller: Admin) -> Response:
    """Forget the organisation's key."""
    served.integrations.remove(caller.scope, integration)
    return JSONResponse({"id": integration, "object": "tunesmith.integration.deleted", "deleted": True})


@router.get("/tunesmith/v1/fine_tuning/jobs/{job_id}/integrations")
def list_recordings(job_id: str, query: Annotated[WireQuery, Query()], served: Served, caller: Caller) -> Response:  # noqa: ARG001 - as above
    """List where a job is told, and how that goes."""
    found = served.integrations.recordings(caller.scope, job_id)
    if found is None:
        raise JobNotFound(job_id)
    return JSONResponse({"object": "list", "data": [wire_recording(each) for each in found], "has_more": False})


def wire_integration(integration: Integration) -> dict[str, Any]:
    """Return an integration as it is shown: without its key."""
    return {
        "id": integration.kind,
        "object": "tunesmith.integration",
        "base_url": integration.base_url,
        "created_at": unix(integration.created_at),
        "updated_at": unix(integration.updated_at),
    }


def wire_tracker(tracker: Tracker) -> dict[str, Any]:
    """Return a tracker, told of jobs or not."""
    return {
        "object": "tunesmith.tracker",
        "type": tracker.kind,
        "name": NAMES[tracker.kind],
        "tells": tracker.tells,
        "place": tracker.place,
        "setting": SETTINGS[tracker.kind],
        "install": tracker.missing,
    }


def wire_recording(recording: Recording) -> dict[str, Any]:
    """Return where a job is told."""
    return {
        "object": "tunesmith.job_integration",
        "type": recording.kind,
        "project": recording.target.get("project"),
        "status": recording.status,
        "url": recording.url,
        "last_step": recording.sent_step,
        "last_sent_at": unix(recording.sent_at),
        "error": recording.error,
        "failures": recording.n_failures,
        "next_try_at": unix(recording.next_try_at) if recording.error is not None else None,
    }
