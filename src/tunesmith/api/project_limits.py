"""What a project may have and ask for: a project's rate limits by model as OpenAI has them, and our quotas."""

from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import JSONResponse, Response

from tunesmith.api.deps import Admin, Served
from tunesmith.api.wire import WireQuery, WireRequest, page
from tunesmith.core.errors import InvalidRequest, NotFound
from tunesmith.domain.scope import Project
from tunesmith.services.all import Services

router = APIRouter(tags=["Limits"])

#: What stands before a model's name in the id of its rate limit.
PREFIX: Final = "rl-"
_RATES: Final = {"max_requests_per_1_minute": "requests", "max_tokens_per_1_minute": "tokens"}

Many = Annotated[int, Field(ge=0, le=2**53)]


class SetQuotas(WireRequest):
    """All own limits of a project: null is no limit, and what is left out is as for every project."""

    training_slots: Annotated[int, Field(ge=1, le=2**31)] | None = None
    queued_jobs: Many | None = None
    files: Many | None = None
    file_bytes: Many | None = None


class SetRate(WireRequest):
    """Changes of a rate limit: null is no limit, and what is left out stays."""

    max_requests_per_1_minute: Many | None = None
    max_tokens_per_1_minute: Many | None = None


class ListRates(WireQuery):
    """Which rate limits to list: those after, or before, the one with an id."""

    after: str | None = None
    before: str | None = None
    limit: int = Field(default=100, ge=1, le=10_000)


def _project(served: Services, project_id: str) -> Project:
    found = served.identity.project(project_id)
    if found is None:
        raise NotFound(f"No such project: {project_id}", param="project_id")
    return Project(found.id, found.organization_id)


def _wire_quotas(served: Services, scope: Project) -> dict[str, Any]:
    usage = served.limits.usage(scope)
    return {
        "object": "tunesmith.project_limits",
        "project_id": scope.project_id,
        "limits": asdict(served.limits.quotas(scope.project_id)),
        "own": sorted(served.limits.own(scope.project_id).own),
        "usage": asdict(usage),
    }


@router.get("/tunesmith/v1/projects/{project_id}/limits")
def get_limits(project_id: str, served: Served, admin: Admin) -> Response:  # noqa: ARG001 - an admin's
    """Tell what a project may have, which of it was set for it, and how much it has."""
    return JSONResponse(_wire_quotas(served, _project(served, project_id)))


@router.put("/tunesmith/v1/projects/{project_id}/limits")
def set_limits(project_id: str, body: SetQuotas, served: Served, admin: Admin) -> Response:  # noqa: ARG001 - an admin's
    """Set all that a project may have."""
    scope = _project(served, project_id)
    served.limits.set_quotas(scope, body.model_dump(exclude_unset=True))
    return JSONResponse(_wire_quotas(served, scope))


def _wire_rate(served: Services, scope: Project, base: str) -> dict[str, Any]:
    rate = served.limits.rate(scope.project_id, base)
    return {
        "object": "project.rate_limit",
        "id": f"{PREFIX}{base}",
        "model": base,
        "max_requests_per_1_minute": rate.requests,
        "max_tokens_per_1_minute": rate.tokens,
    }


@router.get("/v1/organization/projects/{project_id}/rate_limits")
def list_rate_limits(
    project_id: str,
    query: Annotated[ListRates, Query()],
    served: Served,
    admin: Admin,  # noqa: ARG001 - an admin's
) -> Response:
    """List what a project may ask of each base model in a minute."""
    scope = _project(served, project_id)
    names = [base.name for base in served.bases.list()]
    known = [f"{PREFIX}{name}" for name in names]
    for field in ("after", "before"):
        if getattr(query, field) not in (None, *known):
            raise InvalidRequest(f"There is no rate limit with id '{getattr(query, field)}'.", param=field)
    if query.after is not None and query.before is not None:
        raise InvalidRequest("'after' and 'before' cannot be combined.", param="before")
    start = 0 if query.after is None else known.index(query.after) + 1
    end = start + query.limit
    if query.before is not None:
        end = known.index(query.before)
        start = max(0, end - query.limit)
    has_more = start > 0 if query.before is not None else end < len(names)
    data = [_wire_rate(served, scope, name) for name in names[start:end]]
    return JSONResponse(page(data, has_more=has_more, ends=True))


@router.post("/v1/organization/projects/{project_id}/rate_limits/{rate_limit_id}")
def update_rate_limit(
    project_id: str,
    rate_limit_id: str,
    body: SetRate,
    served: Served,
    admin: Admin,  # noqa: ARG001 - an admin's
) -> Response:
    """Change what a project may ask of a base model in a minute."""
    scope = _project(served, project_id)
    base = served.bases.known(rate_limit_id.removeprefix(PREFIX))
    if base is None or rate_limit_id != f"{PREFIX}{base.name}":
        raise NotFound(f"No such rate limit: {rate_limit_id}", param="rate_limit_id")
    changes = {_RATES[name]: value for name, value in body.model_dump(exclude_unset=True).items()}
    served.limits.set_rate(scope, base.name, changes)
    return JSONResponse(_wire_rate(served, scope, base.name))
