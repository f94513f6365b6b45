"""What an endpoint is handed: the services, and whose request it is."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Final, NoReturn, cast

from fastapi import Depends, Request

from tunesmith.core.errors import Forbidden, InvalidRequest
from tunesmith.domain.identity import Role
from tunesmith.domain.scope import DEFAULT_ORGANIZATION, DEFAULT_PROJECT, Project
from tunesmith.services.all import Services

#: Where the caller lies in a request's scope.
PRINCIPAL: Final = "tunesmith.principal"
FORBIDDEN: Final = "insufficient_permissions"


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller: the project whose objects a request sees and makes."""

    organization_id: str
    project_id: str
    #: None where no keys are needed.
    key_id: str | None = None
    role: Role = "admin"
    #: The network address that the request came from.
    address: str = ""

    @property
    def scope(self) -> Project:
        """Return the scope of every query made for this request."""
        return Project(self.project_id, self.organization_id)

    def must_be_admin(self) -> None:
        """Refuse whoever is no admin.

        Raises:
            Forbidden: the caller is none.
        """
        if self.role != "admin":
            raise Forbidden(
                f"This concerns the whole server and needs an admin key; this key's role is '{self.role}'. Ask who runs the "
                "server, or use an admin key (sk-admin-…).",
                code=FORBIDDEN,
            )


#: Where no keys are needed every caller is this one, whatever bearer token came along.
EVERYBODY = Principal(organization_id=DEFAULT_ORGANIZATION, project_id=DEFAULT_PROJECT)


async def caller(request: Request) -> Principal:
    """Return who asks."""
    return request.scope[PRINCIPAL]


async def admin(caller: Annotated[Principal, Depends(caller)]) -> Principal:
    """Return who asks, for what concerns the whole server; `api/keys.py` refuses others before the body is read.

    Raises:
        Forbidden: the caller is no admin.
    """
    caller.must_be_admin()
    return caller


async def answers_only() -> None:
    """Mark a POST that changes nothing and costs little, which a reader may send."""


def refuse_reader(method: str, path: str) -> NoReturn:
    """Refuse a reader who would change something.

    Raises:
        Forbidden: always.
    """
    raise Forbidden(
        f"This key's role is 'reader', which looks and changes nothing ({method} {path}). Use a key whose role is 'member'.",
        code=FORBIDDEN,
    )


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
Admin = Annotated[Principal, Depends(admin)]
Served = Annotated[Services, Depends(services)]
