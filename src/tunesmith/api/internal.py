"""The door for supervisors: reports and heartbeats of attempts, on a Unix socket of its own, never on the public port."""

import json
from collections.abc import Callable
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tunesmith.core.channel import PROTOCOL, Report
from tunesmith.services.attempts import Attempts, Fenced, WrongToken

log = structlog.get_logger()

_Act = Callable[[str, int, str, dict[str, Any]], str]


def create_internal_app(attempts: Attempts) -> Starlette:
    """Return the ASGI application that answers `/internal/v1/…`."""

    async def reports(request: Request) -> Response:
        return await _answer(request, lambda job, attempt, token, body: attempts.report(job, attempt, token, _read(body)))

    async def heartbeat(request: Request) -> Response:
        return await _answer(request, lambda job, attempt, token, _: attempts.heartbeat(job, attempt, token))

    root = "/internal/v1/attempts/{job}/{attempt:int}"
    return Starlette(
        routes=[
            Route(f"{root}/reports", reports, methods=["POST"]),
            Route(f"{root}/heartbeat", heartbeat, methods=["POST"]),
        ]
    )


async def _answer(request: Request, act: _Act) -> Response:
    job, attempt = str(request.path_params["job"]), int(request.path_params["attempt"])
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    try:
        body = json.loads(await request.body())
        if not isinstance(body, dict) or body.get("version") != PROTOCOL:
            raise ValueError(
                f"channel version {body.get('version') if isinstance(body, dict) else None!r} is not {PROTOCOL}"
            )
        desired = await run_in_threadpool(act, job, attempt, token, body)
    except Fenced:
        return JSONResponse({"error": "this attempt is not the job's any more"}, status_code=410)
    except WrongToken:
        return JSONResponse({"error": "this token is not the attempt's"}, status_code=403)
    except (ValueError, KeyError, TypeError) as error:
        log.exception("channel.malformed", job=job, attempt=attempt)
        return JSONResponse({"error": str(error)}, status_code=400)
    return JSONResponse({"version": PROTOCOL, "desired": desired})


def _read(body: dict[str, Any]) -> list[Report]:
    return [Report.from_mapping(item) for item in body["reports"]]
