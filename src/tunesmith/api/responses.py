"""Responses over HTTP: `/v1/responses`, whole or as events; stored unless the request says otherwise.

As in chat completions the first delta is awaited before the status is sent, and a client that leaves stops its response.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Any, Literal, TypeAlias

import structlog
from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from tunesmith.api.chat import CLIENT_LEFT, EventStream, begun, unless_gone
from tunesmith.api.deps import Caller, Served
from tunesmith.api.described import query_of
from tunesmith.api.jobs import no_body
from tunesmith.api.multipart import form_fields
from tunesmith.api.once import Repeatable
from tunesmith.api.rates import Rate
from tunesmith.api.refusals import explain
from tunesmith.api.responses_events import Told
from tunesmith.api.responses_schema import CreateResponse, Includable
from tunesmith.api.wire import Page, WireQuery, page
from tunesmith.core.clock import Clock
from tunesmith.core.errors import ApiError, InvalidRequest, NotAvailable, RateLimited
from tunesmith.data.answers import Delta
from tunesmith.domain.response import StoredResponse

router = APIRouter(prefix="/v1/responses", tags=["Responses"])
log = structlog.get_logger()

#: Stores a response that is whole.
Keep: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]


class GetResponse(WireQuery):
    """What to read of a response; what `include` can name is there where the create asked for it."""

    include: list[Includable] | None = None
    include_obfuscation: bool | None = None
    starting_after: int | None = None
    stream: bool | None = None


class ListItems(Page):
    """Which items to list, the last first unless `order` says otherwise."""

    include: list[Includable] | None = None
    order: Literal["asc", "desc"] = "desc"


def _said(request: Request) -> dict[str, Any]:
    """Return a query, with `include` as a list, which clients write with brackets or without, and more than once."""
    pairs = request.query_params.multi_items()
    included = [value for name, value in pairs if name in ("include", "include[]")]
    fields = form_fields((name, value) for name, value in pairs if name not in ("include", "include[]"))
    return {**fields, "include": included} if included else fields


async def reading(request: Request) -> GetResponse:
    """Read the query of a response."""
    try:
        return GetResponse.model_validate(_said(request))
    except ValidationError as error:
        raise explain([{**fault, "loc": ("query", *fault["loc"])} for fault in error.errors()]) from error


async def listing(request: Request) -> ListItems:
    """Read the query of a list of items."""
    try:
        return ListItems.model_validate(_said(request))
    except ValidationError as error:
        raise explain([{**fault, "loc": ("query", *fault["loc"])} for fault in error.errors()]) from error


@router.post("")
async def create_response(
    body: CreateResponse, request: Request, served: Served, caller: Caller, once: Repeatable, rate: Rate
) -> Response:
    """Answer a conversation, or go on with one that is stored."""
    if body.stream and once is not None:
        once.refused()
        raise InvalidRequest(
            "A streamed answer is not kept, so it cannot have an Idempotency-Key: leave the header or 'stream' out.",
            param="Idempotency-Key",
        )
    wanted = body.checked(served.ids)
    await rate.enter(wanted.chat.model, wanted.chat.max_tokens or 0)
    under_way = await served.responses.answer(caller.scope, wanted)
    answer = under_way.answer
    rate.answers(answer)
    told = Told(under_way.id, answer, body.wire(wanted), served.ids)

    async def keep(whole: dict[str, Any]) -> None:
        also = None if once is None else once.also(_body)
        await run_in_threadpool(served.responses.keep, caller.scope, under_way, whole, also=also)

    stores = keep if body.stored else None
    if body.stream:
        deltas = await unless_gone(request.receive, begun(answer.deltas))
        if deltas is None:
            return Response(status_code=CLIENT_LEFT)
        return ResponseEvents(_events(told, deltas, served.clock, stores))
    whole = await unless_gone(request.receive, _whole(told, answer.deltas, served.clock, stores))
    return Response(status_code=CLIENT_LEFT) if whole is None else JSONResponse(whole)


def _body(stored: StoredResponse) -> dict[str, Any]:
    return stored.body


async def _whole(told: Told, deltas: AsyncGenerator[Delta], clock: Clock, keep: Keep | None) -> dict[str, Any]:
    async with aclosing(deltas):
        async for delta in deltas:
            list(told.feed(delta))
    list(told.finish(clock.now()))
    if keep is not None:
        await keep(told.body)
    return told.body


async def _events(
    told: Told, deltas: AsyncGenerator[Delta], clock: Clock, keep: Keep | None
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the events; it is stored before the last one is sent, which tells of what goes wrong in the middle, too."""
    try:
        for event in told.begin():
            yield event
        async with aclosing(deltas):
            async for delta in deltas:
                for event in told.feed(delta):
                    yield event
        for event in told.finish(clock.now()):
            yield event
        if keep is not None:
            await keep(told.body)
    except ApiError as error:
        log.warning("response.broken", id=told.body["id"], reason=error.message)
        told.fail("rate_limit_exceeded" if isinstance(error, RateLimited) else "server_error", error.message)
    yield told.last()


class ResponseEvents(EventStream):
    """Events that are named; the last of them ends the stream."""

    end = b""

    def rendered(self, chunk: dict[str, Any]) -> bytes:
        """Return an event as it is sent."""
        return f"event: {chunk['type']}\n".encode() + super().rendered(chunk)


@router.get("/{response_id}", openapi_extra=query_of(GetResponse))
def get_response(
    response_id: str, query: Annotated[GetResponse, Depends(reading)], served: Served, caller: Caller
) -> Response:
    """Retrieve a stored response."""
    for name in ("stream", "starting_after"):
        if getattr(query, name):
            raise NotAvailable(
                f"'{name}' is not available in this release: a response is stored once it is whole, and read as such. Leave "
                "it out.",
                param=name,
            )
    return JSONResponse(served.responses.get(caller.scope, response_id).body)


@router.delete("/{response_id}")
def delete_response(response_id: str, served: Served, caller: Caller) -> Response:
    """Delete a stored response."""
    served.responses.delete(caller.scope, response_id)
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


@router.post("/{response_id}/cancel", dependencies=[Depends(no_body)])
def cancel_response(response_id: str, served: Served, caller: Caller) -> None:
    """Refuse to cancel a response, which has come to its end."""
    served.responses.cancel(caller.scope, response_id)


@router.get("/{response_id}/input_items", openapi_extra=query_of(ListItems))
def list_input_items(
    response_id: str, query: Annotated[ListItems, Depends(listing)], served: Served, caller: Caller
) -> Response:
    """List the items that a stored response answers."""
    found, has_more = served.responses.input_items(
        caller.scope, response_id, after=query.after, limit=query.limit, order=query.order
    )
    return JSONResponse(page(found, has_more=has_more, ends=True))
