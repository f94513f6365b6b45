"""Who asks, over HTTP, `/tunesmith/v1/me`: the key's role, its project, and what that role may do."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from tunesmith.api.deps import Caller, Served
from tunesmith.api.wire import unix
from tunesmith.domain.identity import Role

router = APIRouter(prefix="/tunesmith/v1", tags=["Keys"])


class WireNamed(BaseModel):
    """Something with a name."""

    id: str
    name: str


class WireOwnKey(WireNamed):
    """The key that the request came with, without its text."""

    redacted_value: str
    created_at: int
    expires_at: int | None


class WireMay(BaseModel):
    """What the role may do; the table in docs/keys.md is its law."""

    #: Look at everything of the project.
    look: bool = True
    #: Create, change and delete what is the project's, and use the machine: chat, graders, jobs.
    change: bool
    #: Projects, keys, bases, limits, retention, the audit log.
    administer: bool


class WireMe(BaseModel):
    """The caller: `project` is the one that the request is for, `key` null where no keys are needed."""

    object: Literal["tunesmith.me"] = "tunesmith.me"
    role: Role
    organization: WireNamed
    project: WireNamed
    key: WireOwnKey | None
    may: WireMay


@router.get("/me")
def get_me(served: Served, caller: Caller) -> WireMe:
    """Tell who asks."""
    project = served.organization.project(caller.project_id)
    return WireMe(
        role=caller.role,
        organization=WireNamed(id=caller.organization_id, name=served.settings.organization_slug),
        project=WireNamed(id=project.id, name=project.name),
        key=None if caller.key_id is None else _key(served, caller.key_id),
        may=WireMay(change=caller.role != "reader", administer=caller.role == "admin"),
    )


def _key(served: Served, key_id: str) -> WireOwnKey | None:
    # One that was revoked while this request was on its way is none any more.
    return next(
        (
            WireOwnKey(
                id=key.id,
                name=key.name,
                redacted_value=key.hint,
                created_at=int(key.created_at),
                expires_at=unix(key.expires_at),
            )
            for key in served.organization.every_key()
            if key.id == key_id
        ),
        None,
    )
