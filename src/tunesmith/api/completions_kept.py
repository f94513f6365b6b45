"""Stored chat completions over HTTP: listed, read with their messages, described anew, deleted."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from tunesmith.api.chat_schema import CreateChatCompletion
from tunesmith.api.deps import Caller, Served
from tunesmith.api.described import query_of
from tunesmith.api.multipart import form_fields
from tunesmith.api.refusals import explain
from tunesmith.api.wire import Metadata, Page, WireRequest, page
from tunesmith.core.chat import text_of
from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.completion import Completion
from tunesmith.domain.scope import Project
from tunesmith.services.chat import Answer

router = APIRouter(prefix="/v1/chat/completions", tags=["Chat"])


class ListMessages(Page):
    """Which messages to list, in the order of the conversation unless `order` says otherwise."""

    order: Literal["asc", "desc"] = "asc"


class ListCompletions(ListMessages):
    """Which completions to list; `metadata` holds pairs that must all be there."""

    model: str | None = None
    metadata: dict[str, str] | None = None


class UpdateCompletion(WireRequest):
    """What can be changed of a completion; null takes all pairs away."""

    metadata: Metadata | None


async def listing(request: Request) -> ListCompletions:
    """Read the query of the list with its bracketed metadata."""
    if "metadata" in request.query_params:
        raise InvalidRequest("'metadata' is filtered by 'metadata[key]=value'.", param="metadata")
    try:
        return ListCompletions.model_validate(form_fields(request.query_params.multi_items()))
    except ValidationError as error:
        raise explain([{**fault, "loc": ("query", *fault["loc"])} for fault in error.errors()]) from error


@router.get("", openapi_extra=query_of(ListCompletions))
def list_chat_completions(query: Annotated[ListCompletions, Depends(listing)], served: Served, caller: Caller) -> Response:
    """List stored completions, oldest first unless `order` says otherwise."""
    found, has_more = served.completions.page(
        caller.scope,
        after=query.after,
        limit=query.limit,
        order=query.order,
        model=query.model,
        metadata=query.metadata,
    )
    return JSONResponse(page([wire_stored(each) for each in found], has_more=has_more, ends=True))


@router.get("/{completion_id}")
def get_chat_completion(completion_id: str, served: Served, caller: Caller) -> Response:
    """Retrieve a stored completion."""
    return JSONResponse(wire_stored(served.completions.get(caller.scope, completion_id)))


@router.post("/{completion_id}")
def update_chat_completion(completion_id: str, body: UpdateCompletion, served: Served, caller: Caller) -> Response:
    """Put other metadata in place of a stored completion's."""
    return JSONResponse(wire_stored(served.completions.describe(caller.scope, completion_id, body.metadata or {})))


@router.delete("/{completion_id}")
def delete_chat_completion(completion_id: str, served: Served, caller: Caller) -> Response:
    """Delete a stored completion."""
    served.completions.delete(caller.scope, completion_id)
    return JSONResponse({"object": "chat.completion.deleted", "id": completion_id, "deleted": True})


@router.get("/{completion_id}/messages")
def get_chat_completion_messages(
    completion_id: str, query: Annotated[ListMessages, Query()], served: Served, caller: Caller
) -> Response:
    """List the messages that a stored completion answers."""
    found, has_more = served.completions.messages(
        caller.scope, completion_id, after=query.after, limit=query.limit, order=query.order
    )
    return JSONResponse(page([_wire_message(message) for message in found], has_more=has_more, ends=True))


def stored(
    body: CreateChatCompletion, request: Request, scope: Project, answer: Answer, whole: dict[str, Any]
) -> Completion:
    """Return the row of an answer: the object as it was answered, with what the request asked for."""
    asked = body.model_dump(by_alias=True, exclude_unset=True)
    return Completion(
        id=answer.id,
        project_id=scope.project_id,
        created_at=answer.created_at,
        model=body.model,
        metadata=body.metadata or {},
        body={
            **whole,
            "request_id": request.scope.get("tunesmith.request_id"),
            "input_user": body.user,
            "seed": body.seed,
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "presence_penalty": body.presence_penalty or 0.0,
            "frequency_penalty": body.frequency_penalty or 0.0,
            "tools": body.tools,
            "tool_choice": asked.get("tool_choice"),
            "response_format": asked.get("response_format"),
        },
        messages=body.messages,
    )


def wire_stored(completion: Completion) -> dict[str, Any]:
    """Return a stored completion's object."""
    return {**completion.body, "metadata": completion.metadata}


def _wire_message(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message's object; content that was sent in parts is told as text, too."""
    content = message.get("content")
    in_parts = isinstance(content, list)
    return {
        "name": None,
        "refusal": None,
        **message,
        "content": text_of(content),
        "content_parts": content if in_parts else None,
    }
