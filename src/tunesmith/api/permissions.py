"""Permissions over HTTP, `/v1/fine_tuning/checkpoints/{model}/permissions`: for admins; the path names the model itself."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import JSONResponse, Response

from tunesmith.api.deps import Admin, Served
from tunesmith.api.wire import N_PAGE, Text, WireQuery, WireRequest, page, unix
from tunesmith.domain.permission import Permission

router = APIRouter(tags=["Fine-tuning"])

PATH: Final = "/v1/fine_tuning/checkpoints/{model:path}/permissions"
OBJECT: Final = "checkpoint.permission"


class CreatePermissions(WireRequest):
    """The body: the projects that may use the model."""

    project_ids: list[Text]


class ListPermissions(WireQuery):
    """Which permissions, in which order."""

    project_id: str | None = None
    after: str | None = None
    limit: int = Field(default=10, ge=1, le=N_PAGE)
    order: Literal["ascending", "descending"] = "descending"


@router.post(PATH)
def create_permissions(model: str, body: CreatePermissions, served: Served, admin: Admin) -> Response:
    """Let projects use a tuned model or a checkpoint."""
    made = served.permissions.create(admin.scope, model, body.project_ids)
    return JSONResponse(page([wire_permission(each) for each in made], has_more=False, ends=True))


@router.get(PATH)
def list_permissions(model: str, query: Annotated[ListPermissions, Query()], served: Served, admin: Admin) -> Response:
    """List who may use a tuned model or a checkpoint, the newest permission first."""
    found, has_more = served.permissions.page(
        admin.scope,
        model,
        project_id=query.project_id,
        after=query.after,
        limit=query.limit,
        order="asc" if query.order == "ascending" else "desc",
    )
    return JSONResponse(page([wire_permission(each) for each in found], has_more=has_more, ends=True))


@router.delete(f"{PATH}/{{permission_id}}")
def delete_permission(model: str, permission_id: str, served: Served, admin: Admin) -> Response:
    """Withdraw a permission."""
    served.permissions.delete(admin.scope, model, permission_id)
    return JSONResponse({"id": permission_id, "object": OBJECT, "deleted": True})


def wire_permission(permission: Permission) -> dict[str, Any]:
    """Return the permission object."""
    return {
        "id": permission.id,
        "object": OBJECT,
        "created_at": unix(permission.created_at),
        "project_id": permission.project_id,
    }
