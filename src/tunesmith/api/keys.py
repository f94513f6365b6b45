"""The layer that says who asks: by the key in `Authorization: Bearer`, or everybody where no keys are needed."""

from collections.abc import Iterator, Set
from dataclasses import replace
from re import Pattern
from typing import Final

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from tunesmith.api.deps import EVERYBODY, PRINCIPAL, Principal, admin, answers_only, refuse_reader
from tunesmith.api.errors import render
from tunesmith.api.middleware import drained
from tunesmith.core.clock import Clock
from tunesmith.core.errors import ApiError, Unauthorized
from tunesmith.services.identity import Identity

#: What whoever watches over the server asks, and what a reader may ask beside GET.
OPEN: Final = frozenset({"/healthz", "/readyz"})
LOOKS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

Routes = list[tuple[set[str], Pattern[str]]]


class Keyed:
    """Finds the principal of a request, and refuses who has no key, or one that may not; before the body is looked at."""

    def __init__(
        self, app: ASGIApp, *, identity: Identity | None, routes: FastAPI, clock: Clock, also_open: Set[str]
    ) -> None:
        """Take None for `identity` where no keys are needed, and paths that need none beside `OPEN` for `also_open`."""
        self._open = OPEN | also_open
        self._app = app
        self._identity = identity
        self._clock = clock
        self._admins = list(_depending(routes, admin))
        self._answering = list(_depending(routes, answers_only))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it with 401 or 403."""
        if scope["type"] == "http":
            address = scope["client"][0] if scope.get("client") else ""
            try:
                principal = EVERYBODY if self._identity is None else self._asking(self._identity, scope)
                scope[PRINCIPAL] = replace(principal, address=address)
                self._check(scope[PRINCIPAL], scope["method"], scope["path"])
            except ApiError as error:
                if Headers(scope=scope).get("expect", "").lower() != "100-continue":
                    await drained(receive, self._clock)
                await render(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _asking(self, identity: Identity, scope: Scope) -> Principal:
        if scope["path"] in self._open:
            return replace(EVERYBODY, role="reader")
        headers = Headers(scope=scope)
        found = identity.authenticate(
            _bearer(headers), organization=headers.get("openai-organization"), project=headers.get("openai-project")
        )
        return Principal(found.project.organization_id, found.project.id, found.key.id, found.key.role)

    def _check(self, principal: Principal, method: str, path: str) -> None:
        if principal.role == "admin":
            return
        if principal.role == "reader" and method not in LOOKS and not _among(self._answering, method, path):
            refuse_reader(method, path)
        if _among(self._admins, method, path):
            principal.must_be_admin()


def _bearer(headers: Headers) -> bytes:
    """Return the key of a request.

    Raises:
        Unauthorized: it has none, or more than one.
    """
    given = headers.getlist("authorization")
    scheme, _, secret = given[0].partition(" ") if given else ("", "", "")
    if len(given) > 1 or scheme.lower() != "bearer" or not secret.strip():
        why = "The header Authorization stands there more than once." if len(given) > 1 else "No API key was provided."
        raise Unauthorized(
            f"{why} Send one as the header 'Authorization: Bearer YOUR_KEY', as every OpenAI client does with its api_key. "
            "Ask who runs this server for a key, or make one with `tunesmith keys create`."
        )
    return secret.strip().encode("latin-1")


def _among(routes: Routes, method: str, path: str) -> bool:
    return any(method in methods and regex.match(path) for methods, regex in routes)


def _depending(routes: FastAPI, on: object) -> Iterator[tuple[set[str], Pattern[str]]]:
    """Yield verbs and paths of the routes that depend on something."""
    for route in iter_route_contexts(routes.routes):
        dependant = getattr(route, "dependant", None)
        if dependant is not None and depends(dependant, on):
            yield set(route.methods or ()), route.path_regex


def depends(dependant: Dependant, on: object) -> bool:
    """Say whether a route, by what it depends on or what that does, depends on something."""
    return dependant.call is on or any(depends(each, on) for each in dependant.dependencies)
