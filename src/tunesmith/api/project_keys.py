"""Keys over HTTP, for admins alone: a project's as OpenAI's API keys and service accounts, all at `/tunesmith/v1/keys`.

A service account is its key here: one is made and goes with the other.
"""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query
from starlette.responses import JSONResponse, Response

from tunesmith.api.deps import Admin, Served, admin
from tunesmith.api.organization import N_MAX_EXPIRY_S, ExpiresIn, Name, Part
from tunesmith.api.wire import Text, WireQuery, WireRequest, page, unix
from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.identity import Key, Role
from tunesmith.services.organization import page_of

router = APIRouter(tags=["Keys"], dependencies=[Depends(admin)])

PROJECT: Final = "/v1/organization/projects/{project_id}"
#: OpenAI's scope of keys that change nothing.
READ: Final = "api.all.read"
OURS: Final = "/tunesmith/v1/keys"


class CreateAccount(WireRequest):
    """The body of `POST …/service_accounts`."""

    name: Name
    create_service_account_only: bool | None = None
    expires_in_seconds: ExpiresIn | None = None


class CreateKey(WireRequest):
    """The body of `POST /tunesmith/v1/keys`; without `project_id` the caller's project is meant."""

    name: Name
    project_id: Text | None = None
    role: Literal["member", "reader"] = "member"
    expires_at: int | None = None


class ChangeKey(WireRequest):
    """The body of `POST …/api_keys/{id}`; what is left out stays."""

    expires_in_seconds: ExpiresIn | None = None
    scopes: list[Text] | None = None


class ListProjectKeys(Part):
    """Which keys: `inactive` are those of an archived project."""

    owner_project_access: Literal["active", "inactive", "any"] = "any"


class ListKeys(WireQuery):
    """Which keys: of one project, or all."""

    project_id: str | None = None


@router.get(f"{PROJECT}/api_keys")
def list_project_keys(project_id: str, query: Annotated[ListProjectKeys, Query()], served: Served) -> Response:
    """List a project's keys, oldest first."""
    access = _access(served.organization.project(project_id).status)
    found = served.organization.keys(project_id) if query.owner_project_access in ("any", access) else []
    some, has_more = page_of(found, after=query.after, limit=query.limit)
    return JSONResponse(page([wire_project_key(key, access) for key in some], has_more=has_more, ends=True))


@router.get(f"{PROJECT}/api_keys/{{key_id}}")
def get_project_key(project_id: str, key_id: str, served: Served) -> Response:
    """Retrieve a project's key, without its text."""
    access = _access(served.organization.project(project_id).status)
    return JSONResponse(wire_project_key(served.organization.key(project_id, key_id), access))


@router.post(f"{PROJECT}/api_keys/{{key_id}}")
def change_project_key(project_id: str, key_id: str, body: ChangeKey, served: Served) -> Response:
    """Give a project's key another expiry, or let it read alone (`["api.all.read"]`), or all again (`[]`)."""
    changes: dict[str, object] = {} if body.scopes is None else {"role": _role(body.scopes)}
    if body.expires_in_seconds is not None:
        changes["expires_at"] = served.clock.now() + body.expires_in_seconds
    access = _access(served.organization.project(project_id).status)
    return JSONResponse(wire_project_key(served.organization.change_key(project_id, key_id, **changes), access))


@router.delete(f"{PROJECT}/api_keys/{{key_id}}")
def delete_project_key(project_id: str, key_id: str, served: Served) -> Response:
    """Revoke a project's key."""
    served.organization.revoke(served.organization.key(project_id, key_id).id)
    return JSONResponse({"id": key_id, "object": "organization.project.api_key.deleted", "deleted": True})


@router.post(f"{PROJECT}/service_accounts")
def create_account(project_id: str, body: CreateAccount, served: Served) -> Response:
    """Make a key to a project, as OpenAI's API does: by an account that has it. Its text is shown this once."""
    if body.create_service_account_only:
        raise InvalidRequest(
            "A service account is its key here, and none is made without one: leave it out - 'create_service_account_only'",
            param="create_service_account_only",
        )
    expires_at = None if body.expires_in_seconds is None else served.clock.now() + body.expires_in_seconds
    key, secret = served.organization.create_key(project_id, body.name, role="member", expires_at=expires_at)
    shown = {
        "id": key.id,
        "object": "organization.project.service_account.api_key",
        "name": key.name,
        "value": secret,
        "created_at": unix(key.created_at),
        "expires_at": unix(key.expires_at),
    }
    return JSONResponse({**wire_account(key), "api_key": shown})


@router.get(f"{PROJECT}/service_accounts")
def list_accounts(project_id: str, query: Annotated[Part, Query()], served: Served) -> Response:
    """List a project's service accounts, oldest first."""
    found = served.organization.keys(project_id)
    after = query.after and served.organization.key(project_id, query.after).id
    some, has_more = page_of(found, after=after, limit=query.limit)
    return JSONResponse(page([wire_account(key) for key in some], has_more=has_more, ends=True))


@router.get(f"{PROJECT}/service_accounts/{{account_id}}")
def get_account(project_id: str, account_id: str, served: Served) -> Response:
    """Retrieve a service account."""
    return JSONResponse(wire_account(served.organization.key(project_id, account_id)))


@router.delete(f"{PROJECT}/service_accounts/{{account_id}}")
def delete_account(project_id: str, account_id: str, served: Served) -> Response:
    """Delete a service account, and revoke its key."""
    served.organization.revoke(served.organization.key(project_id, account_id).id)
    return JSONResponse({"id": account_id, "object": "organization.project.service_account.deleted", "deleted": True})


@router.post(OURS)
def create_key(body: CreateKey, served: Served, caller: Admin) -> Response:
    """Make a key to a project, a member's or a reader's; its text is shown this once."""
    if body.expires_at is not None and body.expires_at > served.clock.now() + N_MAX_EXPIRY_S:
        raise InvalidRequest(
            "is over a hundred years away: leave it out for a key that stays - 'expires_at'", param="expires_at"
        )
    project_id = body.project_id or caller.project_id
    key, secret = served.organization.create_key(project_id, body.name, role=body.role, expires_at=body.expires_at)
    return JSONResponse({**wire_key(key), "value": secret})


@router.get(OURS)
def list_keys(query: Annotated[ListKeys, Query()], served: Served) -> Response:
    """List every key of the installation, oldest first, or those of one project."""
    one, project_id = served.organization, query.project_id
    found = one.every_key() if project_id is None else one.keys(project_id)
    return JSONResponse(page([wire_key(key) for key in found], has_more=False))


@router.delete(f"{OURS}/{{key_id}}")
def delete_key(key_id: str, served: Served) -> Response:
    """Revoke a key of whatever kind."""
    served.organization.revoke(key_id)
    return JSONResponse({"id": key_id, "object": "tunesmith.key", "deleted": True})


def wire_key(key: Key) -> dict[str, Any]:
    """Return a key of whatever kind as our own object."""
    return {
        "id": key.id,
        "object": "tunesmith.key",
        "project_id": key.project_id,
        "role": key.role,
        "name": key.name,
        "redacted_value": key.hint,
        "created_at": unix(key.created_at),
        "expires_at": unix(key.expires_at),
        "last_used_at": unix(key.last_used_at),
    }


def wire_account(key: Key) -> dict[str, Any]:
    """Return the service account object; `role` may be ours, `reader`."""
    return {
        "id": key.account_id,
        "object": "organization.project.service_account",
        "name": key.name,
        "role": key.role,
        "created_at": unix(key.created_at),
    }


def wire_project_key(key: Key, access: str) -> dict[str, Any]:
    """Return the project key object."""
    owner = {name: value for name, value in wire_account(key).items() if name != "object"}
    return {
        "id": key.id,
        "object": "organization.project.api_key",
        "name": key.name,
        "redacted_value": key.hint,
        "created_at": unix(key.created_at),
        "expires_at": unix(key.expires_at),
        "last_used_at": unix(key.last_used_at),
        "owner": {"type": "service_account", "service_account": owner},
        "owner_project_access": access,
    }


def _role(scopes: list[str]) -> Role:
    """Return the role that OpenAI's scopes are.

    Raises:
        InvalidRequest: there is none.
    """
    if not scopes:
        return "member"
    if scopes == [READ]:
        return "reader"
    raise InvalidRequest(
        f"A key may do everything in its project ([]) or read alone (['{READ}']): permissions by endpoint are not here - "
        "'scopes'",
        param="scopes",
    )


def _access(status: str) -> str:
    return "active" if status == "active" else "inactive"
