"""The public app: its routes, and the layers around them. A new resource is a router included here."""

from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tunesmith.api import (
    aliases,
    audit,
    backup,
    bases,
    chat,
    compare,
    completions,
    completions_kept,
    details,
    embeddings,
    errors,
    export,
    files,
    graders,
    health,
    input_tokens,
    integrations,
    jobs,
    me,
    model_limits,
    models,
    not_available,
    organization,
    permissions,
    preflight,
    project_keys,
    project_limits,
    queue,
    responses,
    retention,
    rollouts,
    samplers,
    spares,
    uploads,
    webhooks,
)
from tunesmith.api.access import PAGES, Access
from tunesmith.api.audit import Audited
from tunesmith.api.idempotency import ExecutedOnce
from tunesmith.api.keys import Keyed
from tunesmith.api.middleware import BodyLimit, Cap, Frame, Vetted
from tunesmith.services.all import Services
from tunesmith.services.uploads import PART_BYTES

#: The body of every error, as our own description tells it.
ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
#: What a form may hold beside its file.
FORM_BYTES: Final = 1024 * 1024


def create_routes(services: Services) -> FastAPI:
    """Return the routes with their errors rendered, without the layers around them."""
    app = FastAPI(
        title="Tunesmith",
        version=version("tunesmith"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # what is wrong with a request is 400 in OpenAI's shape, never the framework's own 422
        responses={"4XX": {"description": "An error.", "content": {"application/json": {"schema": ERROR}}}},
    )
    app.state.services = services
    for module in (
        files,
        uploads,
        jobs,
        preflight,
        model_limits,
        details,
        models,
        aliases,
        permissions,
        export,
        bases,
        project_limits,
        queue,
        rollouts,
        samplers,
        spares,
        chat,
        compare,
        completions,
        completions_kept,
        responses,
        input_tokens,
        embeddings,
        graders,
        webhooks,
        audit,
        retention,
        backup,
        organization,
        project_keys,
        me,
        integrations,
        health,
    ):
        app.include_router(module.router)
    app.include_router(not_available.make_router())
    errors.install(app)
    # inside the next: an answer that is given again is no change
    app.add_middleware(Audited, service=services.audit, clock=services.clock, ids=services.ids)
    app.add_middleware(ExecutedOnce, service=services.idempotency)
    return app


def create_app(services: Services) -> ASGIApp:
    """Return the app as it is served."""
    return framed(create_routes(services), services)


def with_pages(api: ASGIApp, pages: ASGIApp, services: Services) -> ASGIApp:
    """Return the app with the pages for people beside it: under `/dashboard`, where `/` leads; all else is the API's."""
    most = Cap(services.settings.max_file_bytes + FORM_BYTES, "The file is over the limit.")
    guarded = Access(
        Vetted(BodyLimit(pages, clock=services.clock, cap=lambda _: most), keyed=services.settings.needs_keys),
        clock=services.clock,
        sight=services.sight,
        traces=services.traces,
    )

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path == "/" and scope["type"] == "http":
            await RedirectResponse(f"{PAGES}/")(scope, receive, send)
        elif path == PAGES or path.startswith(f"{PAGES}/"):
            await guarded(scope, receive, send)
        else:
            await api(scope, receive, send)

    return either


def framed(routes: FastAPI, services: Services) -> ASGIApp:
    """Return routes with the layers around them."""
    settings = services.settings
    upload = Cap(settings.max_file_bytes + FORM_BYTES, f"The file is over the limit of {settings.max_file_bytes} bytes.")
    part = Cap(PART_BYTES + FORM_BYTES, f"The part is over the limit of {PART_BYTES} bytes.")
    other = Cap(settings.max_body_bytes, f"The body is over the limit of {settings.max_body_bytes} bytes.")

    def cap(scope: Scope) -> Cap:
        if scope["method"] != "POST":
            return other
        if scope["path"].startswith("/v1/uploads/") and scope["path"].endswith("/parts"):
            return part
        return upload if scope["path"] == "/v1/files" else other

    keyed = settings.needs_keys
    limited = BodyLimit(Vetted(routes, keyed=keyed), clock=services.clock, cap=cap)
    also_open = {"/metrics"} if settings.metrics_public else set[str]()
    identity = services.identity if keyed else None
    known = Keyed(limited, identity=identity, routes=routes, clock=services.clock, also_open=also_open)
    seen = Access(known, clock=services.clock, sight=services.sight, traces=services.traces)
    return Frame(seen, clock=services.clock, ids=services.ids)
