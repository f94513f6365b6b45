"""What is kept how long, over HTTP: `/tunesmith/v1/retention` by project, `/tunesmith/v1/gc` and `/storage` for all."""

from dataclasses import asdict
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError
from starlette.responses import JSONResponse, Response

from tunesmith.api.deps import Admin, Served
from tunesmith.api.wire import WireQuery, WireRequest
from tunesmith.domain.retention import KINDS, Going, Policy, Rule

router = APIRouter(tags=["Retention"])

RETENTION: Final = "/tunesmith/v1/retention"
GC: Final = "/tunesmith/v1/gc"
STORAGE: Final = "/tunesmith/v1/storage"

Days = Annotated[int, Field(ge=1, le=36_500)]
N_MAX_KEPT: Final = 10_000
Newest = Annotated[int, Field(ge=1, le=N_MAX_KEPT)]


def _or_newest(words: str) -> WrapValidator:
    """Have a field that is none of these words and no number of the newest say what it may be."""

    def vetted(value: object, take: ValidatorFunctionWrapHandler) -> object:
        try:
            return take(value)
        except ValidationError as error:
            raise PydanticCustomError(
                "value", "must be {words}, or a whole number from 1 to {most}", {"words": words, "most": N_MAX_KEPT}
            ) from error

    return WrapValidator(vetted)


class ByAge(WireRequest):
    """What goes once it is older."""

    older_than_days: Days | None = None

    def rule(self) -> Rule:
        """Return the rule."""
        return Rule(None, self.older_than_days)


class OfCheckpoints(WireRequest):
    """Which of a job's earlier checkpoints stay, and how old the others have to be."""

    keep: Annotated[Literal["best", "last"] | Newest | None, _or_newest("'best', 'last'")] = None
    older_than_days: Days | None = None

    def rule(self) -> Rule:
        """Return the rule."""
        return Rule(self.keep, self.older_than_days)


class OfRollouts(OfCheckpoints):
    """Of how many of a job's steps what was sampled stays; none is the best."""

    keep: Annotated[Literal["last"] | Newest | None, _or_newest("'last'")] = None  # pyright: ignore[reportIncompatibleVariableOverride] - it takes less


class PutRetention(WireRequest):
    """The body: the whole policy; of what it leaves out nothing goes."""

    files: ByAge = ByAge()
    results: ByAge = ByAge()
    checkpoints: OfCheckpoints = OfCheckpoints()
    rollouts: OfRollouts = OfRollouts()
    runs: ByAge = ByAge()


class Collect(WireRequest):
    """The body: whether to show what would go and leave it."""

    dry_run: bool = False


@router.get(RETENTION)
def get_retention(query: Annotated[WireQuery, Query()], served: Served, admin: Admin) -> Response:  # noqa: ARG001 - refuses what is unknown
    """Tell what the project lets go."""
    return JSONResponse(wire_policy(served.gc.policy(admin.scope)))


@router.put(RETENTION)
def put_retention(body: PutRetention, served: Served, admin: Admin) -> Response:
    """Say what the project lets go."""
    policy = Policy(admin.project_id, **{kind: getattr(body, kind).rule() for kind in KINDS})
    return JSONResponse(wire_policy(served.gc.put(admin.scope, policy)))


@router.post(GC)
def collect(body: Collect, served: Served, admin: Admin) -> Response:  # noqa: ARG001 - admins alone
    """Let go what the projects' policies say and what no row names, or show it."""
    gone = served.gc.look() if body.dry_run else served.gc.collect()
    return JSONResponse(
        {
            "object": "tunesmith.gc",
            "dry_run": body.dry_run,
            "bytes": sum(each.bytes for each in gone),
            "data": [wire_going(each) for each in gone],
        }
    )


@router.get(STORAGE)
def list_storage(query: Annotated[WireQuery, Query()], served: Served, admin: Admin) -> Response:  # noqa: ARG001 - as above
    """Tell what every project has on the disk."""
    data = [{"object": "tunesmith.project_storage", **asdict(each)} for each in served.storage.projects(admin.scope)]
    return JSONResponse({"object": "list", "data": data, "has_more": False})


def wire_policy(policy: Policy) -> dict[str, Any]:
    """Return a policy; nulls say that nothing goes by them."""
    rules = policy.rules()
    for kind in ("files", "results", "runs"):
        del rules[kind]["keep"]
    return {"object": "tunesmith.retention", "project_id": policy.project_id, **rules}


def wire_going(going: Going) -> dict[str, Any]:
    """Return something that goes."""
    return {
        "object": "tunesmith.gc_item",
        "kind": going.kind,
        "project_id": going.project_id,
        "id": going.id,
        "name": going.name,
        "key": going.key,
        "bytes": going.bytes,
    }
