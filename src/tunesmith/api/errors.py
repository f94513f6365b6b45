"""The one place where errors become bodies: `ApiError`, refused requests, unknown paths and verbs, crashes.

Every body has OpenAI's shape with all four keys. To add an error declare it in `core/errors.py`; nothing is added here.
"""

import errno
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from tunesmith.api.wire import shown
from tunesmith.core.errors import ApiError, InternalError, InvalidRequest, NotAvailable, NotFound, StorageFull, TooLarge

log = structlog.get_logger()

#: What pydantic's type errors mean in JSON's words.
_EXPECTED: Final[Mapping[str, str]] = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "mapping_type": "an object",
}
_QUOTE: Final = "'"
_PARAMETER_OF: Final = frozenset({"body", "query", "path", "header"})


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
    if isinstance(error, StorageFull):
        sent["x-should-retry"] = "false"
    return JSONResponse(body, status_code=error.status, headers=sent)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


async def _api_error(_request: Request, error: Exception) -> Response:
    return render(cast("ApiError", error))


async def _refused(_request: Request, error: Exception) -> Response:
    refused = cast("RequestValidationError", error)
    return render(explain(refused.errors(), refused.body))


async def _left(_request: Request, _error: Exception) -> Response:
    """Answer into the void: the client closed the connection before its request was complete."""
    return render(InvalidRequest("The request ended before its body was complete."))


async def _http(request: Request, error: Exception) -> Response:
    raised = cast("HTTPException", error)
    verb, path = request.method, request.url.path
    headers = dict(raised.headers or {})
    if raised.status_code == HTTPStatus.NOT_FOUND:
        return render(
            UnknownUrl(
                f"Unknown URL ({verb} {path}). Tunesmith serves files, fine-tuning jobs, models and chat completions under "
                "/v1; its README lists every path, and what is not planned."
            )
        )
    if raised.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["allow"] = ", ".join(_verbs(request))
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
        return render(StorageFull("The server's disk is full: nothing was stored. Free space in its data folder, then try again."))
    return await _crash(request, error)


async def _crash(request: Request, error: Exception) -> Response:
    request_id = request.scope.get("tunesmith.request_id", "unknown")
    log.error("request.crashed", request=request_id, verb=request.method, path=request.url.path, exc_info=error)
    return render(InternalError(f"The server had an error while processing the request. Its log tells more under {request_id}."))


def _verbs(request: Request) -> list[str]:
    """Return every verb of the path, whichever route holds it."""
    known: set[str] = set()
    for verb in ("GET", "POST", "DELETE", "PUT", "PATCH"):
        scope = {**request.scope, "method": verb}
        if any(route.matches(scope)[0] == Match.FULL for route in request.app.routes):
            known.add(verb)
    return sorted(known | ({"HEAD"} if "GET" in known else set()))


def explain(errors: Sequence[Mapping[str, Any]], body: object = None) -> ApiError:
    """Return what to tell about a request that its schema refused: the first fault, or all unknown fields together."""
    first = errors[0]
    kind = first["type"]
    if kind == "json_invalid":
        return InvalidRequest(f"The body is not valid JSON: {first['ctx']['error']} at character {first['loc'][-1]}.")
    name = _field(first["loc"], body)
    if not name and kind == "missing":
        return InvalidRequest("The request needs a JSON object as its body.")
    if not name:
        return InvalidRequest(
            f"The body must be a JSON object (content-type application/json), not {_kind(first.get('input'))}."
        )
    if kind == "missing":
        return InvalidRequest(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    if kind == "extra_forbidden":
        names = [_field(error["loc"], body) for error in errors if error["type"] == kind]
        listed = ", ".join(f"'{unknown}'" for unknown in names)
        return InvalidRequest(f"Unknown parameter{'s' * (len(names) > 1)}: {listed}.", param=name, code="unknown_parameter")
    if kind == "not_available":
        return NotAvailable(f"'{name}': {first['msg']}", param=name)
    if kind == "union_tag_not_found":
        return explain([{**first, "type": "missing", "loc": (*first["loc"], first["ctx"]["discriminator"].strip("'"))}], body)
    if kind in _EXPECTED:
        got = _kind(first.get("input"))
        return InvalidRequest(f"'{name}' must be {_EXPECTED[kind]}, not {got}.", param=name, code="invalid_type")
    told = _told(name, first)
    got = first.get("input")
    return InvalidRequest(told if isinstance(got, dict | list) else f"{told} (got {shown(got)})", param=name, code="invalid_value")


def _told(name: str, error: Mapping[str, Any]) -> str:
    message = str(error["msg"])
    if error["type"] == "value":
        return f"'{name}' {message}"
    if error["type"] == "union_tag_invalid":
        return f"'{name}.{error['ctx']['discriminator'].strip(_QUOTE)}' must be one of {error['ctx']['expected_tags']}"
    message = message.replace("Input should", "should").replace("Value should", "should")
    return f"'{name}' {message[:1].lower()}{message[1:]}"


def _field(location: Sequence[str | int], body: object) -> str:
    """Return the field's path as a client would write it; what pydantic adds to tell a union's branches apart is left out."""
    steps = list(location[1:] if location and location[0] in _PARAMETER_OF else location)
    name, here = "", body
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        if isinstance(step, int):
            name = f"{name}[{step}]"
            here = here[step] if isinstance(here, list) and step < len(here) else None
        elif isinstance(here, dict) and step in here:
            name = f"{name}.{step}" if name else step
            here = cast("dict[str, object]", here)[step]
        elif last or location[0] != "body":
            name = f"{name}.{step}" if name else step
    return name


def _kind(value: object) -> str:
    """Return a JSON value's type with its article."""
    for types, word in (
        (type(None), "null"),
        (bool, "a boolean"),
        (int, "an integer"),
        (float, "a number"),
        (str, "a string"),
        (bytes, "other content"),
        (list, "an array"),
    ):
        if isinstance(value, types):
            return word
    return "an object"
