"""The door for attempts, on a Unix socket of its own, never on the public port: what they report, what their graders ask."""

import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tunesmith.api.chat import CLIENT_LEFT, unless_gone
from tunesmith.api.wire import ascii_json
from tunesmith.core.channel import PROTOCOL, Report
from tunesmith.core.errors import Unavailable
from tunesmith.domain.scope import Project
from tunesmith.graders.base import Flag, GraderRefused, GradingFailed, Question, Tools, Verdict
from tunesmith.services.attempts import Attempts, Fenced, WrongToken

log = structlog.get_logger()

_ROOT: Final = "/internal/v1/attempts/{job}/{attempt:int}"
#: What an attempt is told, from its job's id, its number, its token and the body.
_Act = Callable[[str, int, str, dict[str, Any]], Coroutine[Any, Any, dict[str, Any]]]
#: What a grader in an attempt is told, from the tools of its project and the body.
_Ask = Callable[[Tools, dict[str, Any]], Awaitable[dict[str, Any]]]


def create_internal_app(attempts: Attempts, tools: Callable[[Project], Tools]) -> Starlette:
    """Return the ASGI application that answers `/internal/v1/…`; `tools` are those of a project's graders."""

    async def reports(job: str, attempt: int, token: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"desired": await run_in_threadpool(attempts.report, job, attempt, token, _reports(body))}

    async def heartbeat(job: str, attempt: int, token: str, _: dict[str, Any]) -> dict[str, Any]:
        return {"desired": await run_in_threadpool(attempts.heartbeat, job, attempt, token)}

    def asking(ask: _Ask) -> _Act:
        async def act(job: str, attempt: int, token: str, body: dict[str, Any]) -> dict[str, Any]:
            project = await run_in_threadpool(attempts.project, job, attempt, token)
            return await _asked(ask(tools(project), body))

        return act

    endpoints = {
        "reports": _endpoint(reports),
        "heartbeat": _endpoint(heartbeat),
        "judge": _endpoint(asking(_judge), may_leave=True),
        "similarity": _endpoint(asking(_similarity), may_leave=True),
    }
    return Starlette(routes=[Route(f"{_ROOT}/{name}", endpoint, methods=["POST"]) for name, endpoint in endpoints.items()])


def _endpoint(act: _Act, *, may_leave: bool = False) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers with an act, which is given up where the caller `may_leave` before it is done."""

    async def endpoint(request: Request) -> Response:
        job, attempt = str(request.path_params["job"]), int(request.path_params["attempt"])
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            body = json.loads(await request.body())
            if not isinstance(body, dict) or body.get("version") != PROTOCOL:
                raise ValueError(
                    f"channel version {body.get('version') if isinstance(body, dict) else None!r} is not {PROTOCOL}"
                )
            acting = act(job, attempt, token, body)
            # whoever is killed while a judge thinks wants no answer any more
            told = await unless_gone(request.receive, acting) if may_leave else await acting
        except Fenced:
            return JSONResponse({"error": "this attempt is not the job's any more"}, status_code=410)
        except WrongToken:
            return JSONResponse({"error": "this token is not the attempt's"}, status_code=403)
        except Unavailable as error:
            return JSONResponse({"error": error.message}, status_code=Unavailable.status)
        except (ValueError, KeyError, TypeError) as error:
            log.exception("channel.malformed", job=job, attempt=attempt)
            return JSONResponse({"error": str(error)}, status_code=400)
        return Response(status_code=CLIENT_LEFT) if told is None else ascii_json({"version": PROTOCOL, **told})

    return endpoint


def _reports(body: dict[str, Any]) -> list[Report]:
    return [Report.from_mapping(item) for item in body["reports"]]


async def _judge(tools: Tools, body: dict[str, Any]) -> dict[str, Any]:
    question = Question(**body["question"])
    return {"verdict": _verdict(await tools.judge.ask(question))}


async def _similarity(tools: Tools, body: dict[str, Any]) -> dict[str, Any]:
    left, right = str(body["left"]), str(body["right"])
    return {"cosine": await tools.embedder.similarity(left, right)}


async def _asked(answer: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """Return the answer, or why there is none: that is an answer too, of which the grade tells.

    Raises:
        Unavailable: a model of this server cannot answer now, as when the server is about to end: the grade can wait.
    """
    flag: Flag = "model_grader_server_error"
    try:
        return await answer
    except GradingFailed as failure:
        if isinstance(failure.__cause__, Unavailable):
            raise failure.__cause__ from failure
        verdict = None if failure.verdict is None else _verdict(failure.verdict)
        return {"failed": {"flag": failure.flag, "details": failure.details, "verdict": verdict}}
    except GraderRefused as refused:
        return {"failed": {"flag": flag, "details": refused.message, "verdict": None}}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    usage = verdict.usage
    return {
        "text": verdict.text,
        "model": verdict.model,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
        },
    }
