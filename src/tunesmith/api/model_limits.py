"""What bounds a job on each base over HTTP, `GET /v1/fine_tuning/model_limits`; OpenAI does not tell its answer's form."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from tunesmith.api.deps import Caller, Served
from tunesmith.api.wire import WireQuery
from tunesmith.data.prompts import N_MAX_TRAINING, N_MAX_VALIDATION
from tunesmith.data.rows import N_MIN_EXAMPLES

router = APIRouter(tags=["Fine-tuning"])

#: The most rows of a training and of a validation file; null where only their bytes are bounded.
_N_MAX_ROWS: Final[dict[str, tuple[int | None, int | None]]] = {
    "supervised": (None, None),
    "dpo": (None, None),
    "reinforcement": (N_MAX_TRAINING, N_MAX_VALIDATION),
}


@router.get("/v1/fine_tuning/model_limits")
def list_model_limits(query: Annotated[WireQuery, Query()], served: Served, caller: Caller) -> Response:  # noqa: ARG001 - refuses what is unknown
    """List what bounds a job on every base that can be tuned, under each of its names."""
    settings = served.settings
    of_all: dict[str, Any] = {
        "max_file_bytes": settings.max_file_bytes,
        "max_upload_bytes": settings.max_upload_bytes,
        "max_line_bytes": settings.max_line_bytes,
        "min_training_examples": N_MIN_EXAMPLES,
        "max_training_examples": {method: most for method, (most, _) in _N_MAX_ROWS.items()},
        "max_validation_examples": {method: most for method, (_, most) in _N_MAX_ROWS.items()},
        "max_running_jobs": settings.training_slots,
        "max_running_jobs_per_project": settings.training_slots_per_project,
    }
    data = [
        {"object": "fine_tuning.model_limits", "model": name, "max_tokens": base.context_length, **of_all}
        for base in served.bases.list()
        if base.tunable and base.status == "ready"
        for name in (base.name, *base.aliases)
    ]
    return JSONResponse({"object": "list", "data": data})
