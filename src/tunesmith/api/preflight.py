"""The dry run of a job over HTTP, `POST /tunesmith/v1/fine_tuning/preflight`: ours alone; nothing is created."""

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from tunesmith.api.chat import CLIENT_LEFT, unless_gone
from tunesmith.api.deps import Caller, Served
from tunesmith.api.graders import wire_grade
from tunesmith.api.job_schema import CreateJobRequest
from tunesmith.api.jobs import asked_for, wire_method
from tunesmith.api.wire import ascii_json
from tunesmith.domain.preflight import Preflight, Tried
from tunesmith.graders.grader import Grader

#: What is told of a file elsewhere in the object.
_APART: Final = frozenset({"param", "errors", "n_errors"})

router = APIRouter(prefix="/tunesmith/v1/fine_tuning", tags=["Fine-tuning"])


@router.post("/preflight")
async def make_preflight(body: CreateJobRequest, request: Request, served: Served, caller: Caller) -> Response:
    """Tell what a job of this body would be, take and cost, and what is wrong with its files; refuse what create refuses."""
    wanted, grader = asked_for(body, served)
    made = await unless_gone(request.receive, served.preflights.make(caller.scope, wanted, grader))
    return Response(status_code=CLIENT_LEFT) if made is None else ascii_json(wire_preflight(made, grader))


def wire_preflight(made: Preflight, grader: Grader | None) -> dict[str, Any]:
    """Return the object `tunesmith.preflight`."""
    job, outcome, estimate = made.job, made.outcome or {}, made.estimate
    files = {file["param"]: {key: file[key] for key in file if key not in _APART} for file in made.files}
    return {
        "object": "tunesmith.preflight",
        "valid": made.error is None,
        "error": made.error,
        "errors": [{"param": file["param"], **error} for file in made.files for error in file["errors"]],
        "n_errors": sum(file["n_errors"] for file in made.files),
        "model": job.model,
        "base": job.base,
        "method": wire_method(job),
        "training_file": files.get("training_file"),
        "validation_file": files.get("validation_file"),
        "steps_per_epoch": outcome.get("steps_per_epoch"),
        "total_steps": outcome.get("total_steps"),
        "trained_tokens": None if estimate is None else estimate.trained_tokens,
        "estimate": None
        if estimate is None
        else {
            "source": estimate.source,
            "jobs": estimate.n_jobs,
            "seconds": round(estimate.seconds, 1),
            "seconds_low": round(estimate.low, 1),
            "seconds_high": round(estimate.high, 1),
            "memory_bytes": made.memory.bytes,
            "machine_memory_bytes": made.memory.machine_bytes,
            "device": "gpu" if made.memory.on_gpu else "cpu",
        },
        "cost": None
        if made.cost is None
        else {
            "amount": made.cost.amount,
            "currency": made.cost.currency,
            "per_million_tokens": made.cost.per_million_tokens,
            "trained_tokens": made.cost.trained_tokens,
        },
        "grader": None if grader is None else {"samples": [_wire_tried(tried, grader) for tried in made.grades or ()]},
        "warnings": made.warnings,
    }


def _wire_tried(tried: Tried, grader: Grader) -> dict[str, Any]:
    graded = None if tried.grade is None else wire_grade(str(grader.name), grader.type, tried.grade)
    errors = {} if graded is None else graded["metadata"]["errors"]
    return {
        "line": tried.line,
        "sample": tried.kind,
        "column": tried.column,
        "model_sample": tried.text,
        "reward": None if graded is None else graded["reward"],
        "sub_rewards": {} if graded is None else graded["sub_rewards"],
        "errors": {flag: errors[f"{flag}_details"] for flag, is_set in errors.items() if is_set is True},
    }
