"""Models over HTTP: `/v1/models`, bases and tuned ones alike; a name may hold `:` and slashes."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from tunesmith.api.deps import Caller, Served
from tunesmith.api.wire import WireQuery
from tunesmith.services.models import Listed

router = APIRouter(prefix="/v1/models", tags=["Models"])


@router.get("")
def list_models(query: Annotated[WireQuery, Query()], served: Served, caller: Caller) -> Response:  # noqa: ARG001 - refuses what is unknown
    """List the models that answer: bases, tuned models, kept checkpoints."""
    return JSONResponse({"object": "list", "data": [wire_model(model) for model in served.models.page(caller.scope)]})


@router.get("/{model:path}")
def get_model(model: str, served: Served, caller: Caller) -> Response:
    """Retrieve a model."""
    return JSONResponse(wire_model(served.models.get(caller.scope, model)))


@router.delete("/{model:path}")
async def delete_model(model: str, served: Served, caller: Caller) -> Response:
    """Delete a tuned model."""
    await served.models.delete(caller.scope, model)
    return JSONResponse({"id": model, "object": "model", "deleted": True})


def wire_model(model: Listed) -> dict[str, Any]:
    """Return the model object."""
    return {"id": model.name, "object": "model", "created": int(model.created_at), "owned_by": model.owned_by}
