"""Webhooks over HTTP: `/v1/webhook_endpoints`, the event types, and of our own the log of deliveries."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from tunesmith.api.deps import Caller, Served, no_body
from tunesmith.api.wire import Page, Text, WireQuery, WireRequest, page, unix
from tunesmith.domain.webhook import EVENT_TYPES, Delivery, Endpoint

router = APIRouter(tags=["Webhooks"])

ENDPOINTS: Final = "/v1/webhook_endpoints"
OURS: Final = "/tunesmith/v1"
#: Of a secret, as much as tells two of them apart.
_N_HINT: Final = 4

Name = Annotated[Text, Field(min_length=1, max_length=256)]
Url = Annotated[Text, Field(min_length=1, max_length=2048)]
EventTypes = Annotated[list[Text], Field(min_length=1, max_length=32)]


class CreateEndpoint(WireRequest):
    """The body of `POST /v1/webhook_endpoints`."""

    name: Name
    url: Url
    event_types: EventTypes


class UpdateEndpoint(WireRequest):
    """The body of `POST /v1/webhook_endpoints/{id}`: what is to change."""

    name: Name | None = None
    url: Url | None = None
    event_types: EventTypes | None = None


class RotateSecret(WireRequest):
    """The body of `POST /v1/webhook_endpoints/{id}/rotate_secret`."""

    keep_old_secret_active_for_24_hours: bool | None = None


class TestEndpoint(WireRequest):
    """The body of `POST /v1/webhook_endpoints/{id}/test`."""

    event_type: Text


class ListDeliveries(WireQuery):
    """How much of the log."""

    limit: int = Field(default=20, ge=1, le=1000)


@router.post(ENDPOINTS)
def create_endpoint(body: CreateEndpoint, served: Served, caller: Caller) -> Response:
    """Make an endpoint; its secret is shown this once."""
    endpoint = served.webhooks.create(caller.scope, name=body.name, url=body.url, event_types=body.event_types)
    return JSONResponse(_with_secret(endpoint))


@router.get(ENDPOINTS)
def list_endpoints(query: Annotated[Page, Query()], served: Served, caller: Caller) -> Response:
    """List endpoints, newest first."""
    endpoints, has_more = served.webhooks.page(caller.scope, after=query.after, limit=query.limit)
    return JSONResponse(page([wire_endpoint(endpoint) for endpoint in endpoints], has_more=has_more, ends=True))


@router.get(f"{ENDPOINTS}/{{endpoint_id}}")
def get_endpoint(endpoint_id: str, served: Served, caller: Caller) -> Response:
    """Retrieve an endpoint."""
    return JSONResponse(wire_endpoint(served.webhooks.get(caller.scope, endpoint_id)))


@router.post(f"{ENDPOINTS}/{{endpoint_id}}")
def update_endpoint(endpoint_id: str, body: UpdateEndpoint, served: Served, caller: Caller) -> Response:
    """Change an endpoint; one that was disabled is sent to again."""
    changed = served.webhooks.update(caller.scope, endpoint_id, name=body.name, url=body.url, event_types=body.event_types)
    return JSONResponse(wire_endpoint(changed))


@router.delete(f"{ENDPOINTS}/{{endpoint_id}}")
def delete_endpoint(endpoint_id: str, served: Served, caller: Caller) -> Response:
    """Delete an endpoint."""
    served.webhooks.delete(caller.scope, endpoint_id)
    return JSONResponse({"id": endpoint_id, "object": "webhook_endpoint.deleted", "deleted": True})


@router.post(f"{ENDPOINTS}/{{endpoint_id}}/rotate_secret")
def rotate_secret(endpoint_id: str, served: Served, caller: Caller, body: RotateSecret | None = None) -> Response:
    """Give an endpoint a new secret, shown this once."""
    keep_old = bool(body is not None and body.keep_old_secret_active_for_24_hours)
    return JSONResponse(_with_secret(served.webhooks.rotate(caller.scope, endpoint_id, keep_old=keep_old)))


@router.post(f"{ENDPOINTS}/{{endpoint_id}}/test")
async def test_endpoint(endpoint_id: str, body: TestEndpoint, served: Served, caller: Caller) -> Response:
    """Send a sample event at once."""
    endpoint = await run_in_threadpool(served.webhooks.get, caller.scope, endpoint_id)
    status = await served.webhooks.test(endpoint, body.event_type)
    return JSONResponse(
        {
            "object": "webhook_endpoint.test",
            "success": True,
            "status_code": status,
            "event_type": body.event_type,
            "webhook_endpoint_id": endpoint_id,
        }
    )


@router.get("/v1/webhook_event_types")
def list_event_types(query: Annotated[WireQuery, Query()]) -> Response:  # noqa: ARG001 - refuses what is unknown
    """List the events that happen here."""
    return JSONResponse({"object": "list", "data": list(EVENT_TYPES)})


@router.get(f"{OURS}/webhook_endpoints/{{endpoint_id}}/deliveries")
def list_deliveries(endpoint_id: str, query: Annotated[ListDeliveries, Query()], served: Served, caller: Caller) -> Response:
    """List what was and is to be sent to an endpoint, the newest event first."""
    deliveries, has_more = served.webhooks.deliveries(caller.scope, endpoint_id, limit=query.limit)
    return JSONResponse(page([wire_delivery(delivery) for delivery in deliveries], has_more=has_more))


@router.post(f"{OURS}/webhook_deliveries/{{delivery_id}}/redeliver", dependencies=[Depends(no_body)])
def redeliver(delivery_id: str, served: Served, caller: Caller) -> Response:
    """Send an event again."""
    return JSONResponse(wire_delivery(served.webhooks.redeliver(caller.scope, delivery_id)))


def wire_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    """Return the endpoint object, with `status` and `status_details` of our own."""
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "created_at": unix(endpoint.created_at),
        "updated_at": unix(endpoint.updated_at),
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": endpoint.event_types,
        "signing_secret_hint": f"whsec_...{endpoint.secret[-_N_HINT:]}",
        "status": "enabled" if endpoint.disabled_reason is None else "disabled",
        "status_details": endpoint.disabled_reason,
    }


def _with_secret(endpoint: Endpoint) -> dict[str, Any]:
    return {**wire_endpoint(endpoint), "signing_secret": endpoint.secret}


def wire_delivery(delivery: Delivery) -> dict[str, Any]:
    """Return a line of the log."""
    return {
        "id": delivery.id,
        "object": "tunesmith.webhook_delivery",
        "webhook_endpoint_id": delivery.endpoint_id,
        "event": delivery.event(),
        "status": delivery.status,
        "tries": delivery.n_tries,
        "tried_at": unix(delivery.tried_at),
        "status_code": delivery.status_code,
        "reason": delivery.reason,
        "next_try_at": unix(delivery.next_try_at) if delivery.status == "pending" else None,
    }
