"""The organisation over HTTP, `/v1/organization`: projects and the keys of admins, for admins alone."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from starlette.responses import JSONResponse, Response

from tunesmith.api.deps import Served, admin, no_body
from tunesmith.api.wire import Text, WireQuery, WireRequest, page, unix
from tunesmith.domain.identity import Key, NamedProject
from tunesmith.services.organization import page_of

router = APIRouter(prefix="/v1/organization", tags=["Organization"], dependencies=[Depends(admin)])

N_MAX_PAGE: Final = 100
#: A hundred years: what is longer is no expiry.
N_MAX_EXPIRY_S: Final = 100 * 365 * 24 * 3600

Name = Annotated[Text, Field(min_length=1, max_length=256)]
ExpiresIn = Annotated[int, Field(ge=1, le=N_MAX_EXPIRY_S)]


class NameProject(WireRequest):
    """The body of creating and of changing a project."""

    name: Name


class CreateAdminKey(WireRequest):
    """The body of `POST /v1/organization/admin_api_keys`."""

    name: Name
    expires_in_seconds: ExpiresIn | None = None


class Part(WireQuery):
    """Which part of a list."""

    after: str | None = None
    limit: int = Field(default=20, ge=1, le=N_MAX_PAGE)


class ListProjects(Part):
    """Which projects."""

    include_archived: bool = False


class ListAdminKeys(Part):
    """Which admin keys, and the oldest or the newest first."""

    order: Literal["asc", "desc"] = "asc"


@router.post("/projects")
def create_project(body: NameProject, served: Served) -> Response:
    """Make a project."""
    return JSONResponse(wire_project(served.organization.create_project(body.name)))


@router.get("/projects")
def list_projects(query: Annotated[ListProjects, Query()], served: Served) -> Response:
    """List projects, oldest first."""
    found = served.organization.projects(archived=query.include_archived)
    some, has_more = page_of(found, after=query.after, limit=query.limit)
    return JSONResponse(page([wire_project(each) for each in some], has_more=has_more, ends=True))


@router.get("/projects/{project_id}")
def get_project(project_id: str, served: Served) -> Response:
    """Retrieve a project."""
    return JSONResponse(wire_project(served.organization.project(project_id)))


@router.post("/projects/{project_id}")
def change_project(project_id: str, body: NameProject, served: Served) -> Response:
    """Rename a project."""
    return JSONResponse(wire_project(served.organization.rename(project_id, body.name)))


@router.post("/projects/{project_id}/archive", dependencies=[Depends(no_body)])
def archive_project(project_id: str, served: Served) -> Response:
    """Archive a project: its keys are refused, what belongs to it stays."""
    return JSONResponse(wire_project(served.organization.archive(project_id)))


@router.post("/admin_api_keys")
def create_admin_key(body: CreateAdminKey, served: Served) -> Response:
    """Make an admin key; its text is shown this once."""
    expires_at = None if body.expires_in_seconds is None else served.clock.now() + body.expires_in_seconds
    key, secret = served.organization.create_key(None, body.name, role="admin", expires_at=expires_at)
    return JSONResponse({**wire_admin_key(key), "value": secret})


@router.get("/admin_api_keys")
def list_admin_keys(query: Annotated[ListAdminKeys, Query()], served: Served) -> Response:
    """List the keys of admins."""
    found = served.organization.keys(None)
    some, has_more = page_of(found[:: 1 if query.order == "asc" else -1], after=query.after, limit=query.limit)
    return JSONResponse(page([wire_admin_key(key) for key in some], has_more=has_more, ends=True))


@router.get("/admin_api_keys/{key_id}")
def get_admin_key(key_id: str, served: Served) -> Response:
    """Retrieve an admin key, without its text."""
    return JSONResponse(wire_admin_key(served.organization.key(None, key_id)))


@router.delete("/admin_api_keys/{key_id}")
def delete_admin_key(key_id: str, served: Served) -> Response:
    """Revoke an admin key."""
    served.organization.revoke(served.organization.key(None, key_id).id)
    return JSONResponse({"id": key_id, "object": "organization.admin_api_key.deleted", "deleted": True})


def wire_project(project: NamedProject) -> dict[str, Any]:
    """Return the project object."""
    return {
        "id": project.id,
        "object": "organization.project",
        "name": project.name,
        "created_at": unix(project.created_at),
        "archived_at": unix(project.archived_at),
        "status": project.status,
    }


def wire_admin_key(key: Key) -> dict[str, Any]:
    """Return the admin key object; there are no users here, and so one owner of all."""
    return {
        "id": key.id,
        "object": "organization.admin_api_key",
        "name": key.name,
        "redacted_value": key.hint,
        "created_at": unix(key.created_at),
        "expires_at": unix(key.expires_at),
        "last_used_at": unix(key.last_used_at),
        "owner": {
            "type": "user",
            "object": "organization.user",
            "id": "user-admin",
            "name": "admin",
            "created_at": unix(key.created_at),
            "role": "owner",
        },
    }
