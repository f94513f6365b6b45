"""A line of the log and two figures for every request, once it is over; all that it logs holds its id and its job."""

import re
from http import HTTPStatus
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.core.clock import Clock
from tunesmith.domain.sight import REQUEST, REQUESTS, Sight
from tunesmith.domain.traces import Traces

log = structlog.get_logger()

#: Whoever sends other verbs, or to other paths, makes no figures of their names.
VERBS: Final = frozenset({"GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"})
OTHER: Final = "other"
#: Asked every few seconds by whoever watches the server: no news.
PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
#: The pages for people, and what they fetch and ask for by themselves.
PAGES: Final = "/dashboard"
PARTS: Final = "/dashboard/_nicegui"
#: nginx's own word for a client that left before its answer began.
CLIENT_LEFT: Final = 499
_JOB: Final = re.compile(r"/(ftjob-[\w-]{1,58})(?:/|$)", re.ASCII)


class Access:
    """Notes requests by the template of their route, never by their path, query or body."""

    def __init__(self, app: ASGIApp, *, clock: Clock, sight: Sight, traces: Traces) -> None:
        self._app = app
        self._clock = clock
        self._sight = sight
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = self._clock.monotonic()
        status, ended = 0, False

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        known = {"request": scope["tunesmith.request_id"]} if "tunesmith.request_id" in scope else {}
        named = _JOB.search(scope["path"])
        job = None if named is None else named[1]
        if job is not None:
            known["job"] = job
        with (
            structlog.contextvars.bound_contextvars(**known),
            self._traces.request(_verb(scope), Headers(scope=scope), job_id=job) as traced,
        ):
            try:
                await self._app(scope, receive, noting)
                ended = True
            finally:
                unanswered = CLIENT_LEFT if ended else HTTPStatus.INTERNAL_SERVER_ERROR
                answered = int(status or unanswered)
                traced(_route(scope), answered)
                self._note(scope, answered, self._clock.monotonic() - start)

    def _note(self, scope: Scope, status: int, took_s: float) -> None:
        route, verb = _route(scope), _verb(scope)
        self._sight.count(REQUESTS, route, verb, str(status))
        self._sight.observe(REQUEST, took_s, route, verb)
        told = log.debug if route in PROBES or route == PARTS else log.info
        who = scope.get("tunesmith.principal")
        owner = {} if who is None else {"project": who.project_id, "key": who.key_id}
        told("request.served", method=verb, route=route, status=status, ms=round(took_s * 1000, 1), **owner)


def _route(scope: Scope) -> str:
    for pages in (PARTS, PAGES):
        if f"{scope['path']}/".startswith(f"{pages}/"):
            return pages
    return getattr(scope.get("route"), "path", None) or OTHER


def _verb(scope: Scope) -> str:
    return scope["method"] if scope["method"] in VERBS else OTHER
