"""The audit log over HTTP, `/tunesmith/v1/audit`, and the layer that sees every change and has it noted."""

import json
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, cast

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.api.deps import PRINCIPAL, Admin, Principal, Served
from tunesmith.api.wire import Page, page, unix
from tunesmith.core.clock import Clock
from tunesmith.core.ids import Ids
from tunesmith.domain.audit import Entry
from tunesmith.services.audit import Audit

router = APIRouter(tags=["Audit"])

PATH: Final = "/tunesmith/v1/audit"
#: Questions, which change nothing that anybody else could see; everything else that is not a GET is a change.
QUESTIONS: Final = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/responses/input_tokens",
        "/v1/embeddings",
        "/v1/fine_tuning/alpha/graders/run",
        "/v1/fine_tuning/alpha/graders/validate",
        "/tunesmith/v1/graders/templates",
        "/tunesmith/v1/compare",
        "/tunesmith/v1/fine_tuning/preflight",
    }
)
#: The largest answer that is looked through for the ids of what was made.
N_LOOKED_AT: Final = 64 * 1024
#: What an answer calls the thing that it tells of.
_NAMES: Final = ("id", "name", "alias")


#: Seconds since 1970, no further away than a database can count.
Moment = Annotated[int, Field(ge=0, le=2**53)]


class ListAudit(Page):
    """Which entries, in which order."""

    project_id: str | None = None
    key_id: str | None = None
    since: Moment | None = None
    until: Moment | None = None
    order: Literal["asc", "desc"] = "desc"


@router.get(PATH)
def list_audit(query: Annotated[ListAudit, Query()], served: Served, admin: Admin) -> Response:  # noqa: ARG001 - admins alone
    """List who changed what, the newest change first."""
    entries, has_more = served.audit.page(
        project_id=query.project_id,
        key_id=query.key_id,
        since=query.since,
        until=query.until,
        after=query.after,
        limit=query.limit,
        order=query.order,
    )
    return JSONResponse(page([wire_entry(entry) for entry in entries], has_more=has_more, ends=True))


def wire_entry(entry: Entry) -> dict[str, Any]:
    """Return an entry of the log."""
    return {
        "id": entry.id,
        "object": "tunesmith.audit_entry",
        "created_at": unix(entry.created_at),
        "actor": entry.actor,
        "key_id": entry.key_id,
        "address": entry.address,
        "project_id": entry.project_id,
        "action": entry.action,
        "objects": entry.objects,
        "status": entry.status,
        "request_id": entry.request_id,
    }


class Audited:
    """Has every change noted: whatever a route did that is neither a GET nor a question, unless it was refused."""

    def __init__(self, app: ASGIApp, *, service: Audit, clock: Clock, ids: Ids) -> None:
        self._app = app
        self._service = service
        self._clock = clock
        self._ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        status = int(HTTPStatus.INTERNAL_SERVER_ERROR)
        told: bytearray | None = None

        async def heard(message: Message) -> None:
            nonlocal status, told
            if message["type"] == "http.response.start":
                status = message["status"]
                length = Headers(raw=message["headers"]).get("content-length", "")
                told = bytearray() if length.isdigit() and int(length) <= N_LOOKED_AT else None
            elif told is not None:
                told += message.get("body", b"")
                if not message.get("more_body", False):
                    note()
            await send(message)

        noted = False

        def note() -> None:
            nonlocal noted
            route = getattr(scope.get("route"), "path", None)
            refused = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
            if noted or route is None or refused or route in QUESTIONS:
                return
            noted = True
            caller: Principal = scope[PRINCIPAL]
            self._service.note(
                Entry(
                    id=self._ids.audit(),
                    project_id=caller.project_id,
                    created_at=self._clock.now(),
                    actor=caller.role,
                    key_id=caller.key_id,
                    address=caller.address or None,
                    request_id=scope.get("tunesmith.request_id"),
                    action=f"{scope['method']} {route.replace(':path}', '}')}",
                    objects=_objects(scope, bytes(told or b"")),
                    status=status,
                )
            )

        try:
            await self._app(scope, receive, heard)
        finally:
            note()  # also of what has no length, broke off, or crashed on the way


def _objects(scope: Scope, told: bytes) -> list[str]:
    """Return the ids and names that the path and the answer tell, each once."""
    try:
        answer: object = json.loads(told) if told else None
    except ValueError:
        answer = None
    found = [str(value) for value in scope.get("path_params", {}).values()]
    if isinstance(answer, dict):
        body = cast("dict[str, Any]", answer)
        several: object = body.get("data")
        for each in [body, *(cast("list[Any]", several) if isinstance(several, list) else ())]:
            if isinstance(each, dict):
                found += [value for name in _NAMES[:1] if isinstance(value := cast("dict[str, Any]", each).get(name), str)]
        if not found:
            found = [value for name in _NAMES if isinstance(value := body.get(name), str)]
    return list(dict.fromkeys(found))
