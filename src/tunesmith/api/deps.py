"""What an endpoint is handed: the services, and whose request it is."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import Depends, Request

from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.scope import DEFAULT_ORGANIZATION, DEFAULT_PROJECT, Project
from tunesmith.services.all import Services


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller: the project whose objects a request sees and makes."""

    organization_id: str
    project_id: str

    @property
    def scope(self) -> Project:
        """Return the scope of every query made for this request."""
        return Project(self.project_id, self.organization_id)


#: Without keys (loopback only) every caller is this one, whatever bearer token came along.
EVERYBODY = Principal(organization_id=DEFAULT_ORGANIZATION, project_id=DEFAULT_PROJECT)


async def caller() -> Principal:
    """Return who asks."""
    return EVERYBODY


async def services(request: Request) -> Services:
    """Return the services that the app was made with."""
    return request.app.state.services


async def no_body(request: Request) -> None:
    """Accept an empty body or an empty object, which clients send with verbs that take nothing.

    Raises:
        InvalidRequest: the body says something.
    """
    body = await request.body()
    if not body.strip():
        return
    try:
        said: object = json.loads(body)
    except ValueError as error:
        raise InvalidRequest("The body is not valid JSON; this call needs none.") from error
    if said not in ({}, None):
        names = ", ".join(f"'{name}'" for name in cast("dict[str, Any]", said)) if isinstance(said, dict) else "a value"
        raise InvalidRequest(f"This call takes no parameters, but its body holds {names}.")


Caller = Annotated[Principal, Depends(caller)]
Served = Annotated[Services, Depends(services)]
