"""The one place where errors become bodies: `ApiError`, refused requests, unknown paths and verbs, crashes.

Every body has OpenAI's shape with all four keys. To add an error declare it in `core/errors.py`; nothing is added here.
"""

import errno
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from tunesmith.api.once import ONCE, Once
from tunesmith.api.refusals import explain
from tunesmith.core import logs
from tunesmith.core.errors import (
    ApiError,
    InternalError,
    InvalidRequest,
    NotAvailable,
    NotFound,
    OverQuota,
    RateLimited,
    StorageFull,
    TooLarge,
    Unauthorized,
)

log = structlog.get_logger()


class MethodNotAllowed(ApiError):
    """The path exists, this verb of it does not (405)."""

    status = 405
    code = "method_not_allowed"


class UnknownUrl(NotFound):
    """Nothing is served under this path (404)."""

    code = "unknown_url"


def install(app: FastAPI) -> None:
    """Make the app render every error here."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _left)
    app.add_exception_handler(OSError, _system)
    app.add_exception_handler(Exception, _crash)


def render(error: ApiError, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response that tells an error; text that UTF-8 cannot hold is escaped."""
    body = {"error": {key: None if value is None else _encodable(value) for key, value in error.body()["error"].items()}}
    sent = dict(headers or {})
    if isinstance(error, Unauthorized):
        sent["www-authenticate"] = 'Bearer realm="Tunesmith"'
    if isinstance(error, StorageFull | OverQuota):
        sent["x-should-retry"] = "false"
    if isinstance(error, RateLimited):
        sent.update(error.headers)
        if error.retry_after_s is not None:
            sent["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
            sent["retry-after-ms"] = str(math.ceil(error.retry_after_s * 1000))
    return JSONResponse(body, status_code=error.status, headers=sent)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _unexecuted(request: Request) -> None:
    once: Once | None = request.scope.get(ONCE)
    if once is not None:
        once.refused()


async def _api_error(request: Request, error: Exception) -> Response:
    if isinstance(error, NotAvailable):
        _unexecuted(request)
    return render(cast("ApiError", error))


async def _refused(request: Request, error: Exception) -> Response:
    _unexecuted(request)
    refused = cast("RequestValidationError", error)
    return render(explain(refused.errors(), refused.body))


async def _left(request: Request, _error: Exception) -> Response:
    """Answer into the void: the client closed the connection before its request was complete."""
    _unexecuted(request)
    return render(InvalidRequest("The request ended before its body was complete."))


async def _http(request: Request, error: Exception) -> Response:
    raised = cast("HTTPException", error)
    _unexecuted(request)
    verb, path = request.method, request.url.path
    headers = dict(raised.headers or {})
    if raised.status_code == HTTPStatus.NOT_FOUND:
        return render(
            UnknownUrl(
                f"Unknown URL ({verb} {path}). Tunesmith serves files, fine-tuning jobs, models and chat completions under "
                "/v1; its README tells what is served, what is not yet, and what is not planned."
            )
        )
    if raised.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"allow": ", ".join(_verbs(request))}
        if verb == "OPTIONS":
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
        return render(MethodNotAllowed(f"{verb} is not a verb of {path}; it knows {headers['allow']}."), headers)
    if raised.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return render(TooLarge(raised.detail), headers)
    if raised.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return render(InvalidRequest(f"The request cannot be read: {raised.detail}."), headers)
    return render(InternalError(raised.detail), headers)


async def _system(request: Request, error: Exception) -> Response:
    if cast("OSError", error).errno in {errno.ENOSPC, errno.EDQUOT}:
        log.error("storage.full", path=request.url.path, reason=str(error))
        return render(StorageFull("The server's disk is full and nothing was stored. Free space there, then try again."))
    return await _crash(request, error)


async def _crash(request: Request, error: Exception) -> Response:
    request_id = request.scope.get("tunesmith.request_id", "unknown")
    log.error("request.crashed", request=request_id, verb=request.method, path=request.url.path, exc_info=error)
    logs.told(error)
    told = InternalError(f"The server failed on this request. Its log tells why under {request_id}.")
    # Starlette raises the error again once this is sent, and uvicorn then closes the connection: the client should know.
    return render(told, {"connection": "close"})


def _verbs(request: Request) -> list[str]:
    """Return every verb of the path, whichever route holds it."""
    known: set[str] = set()
    for verb in ("GET", "POST", "DELETE", "PUT", "PATCH"):
        scope = {**request.scope, "method": verb}
        if any(route.matches(scope)[0] == Match.FULL for route in request.app.routes):
            known.add(verb)
    return sorted(known | ({"HEAD"} if "GET" in known else set()))
