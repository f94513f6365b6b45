"""Further names of models over HTTP, `/tunesmith/v1/aliases`: ours alone, for code that asks for other names."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query

from tunesmith.api.deps import Caller, Served
from tunesmith.api.wire import Text, WireQuery, WireRequest

router = APIRouter(tags=["Aliases"])

PATH: Final = "/tunesmith/v1/aliases"


class AddAlias(WireRequest):
    """A further name for a model; `move` takes it from the one that has it."""

    alias: Text
    model: Text
    move: bool = False


@router.get(PATH)
def list_aliases(query: Annotated[WireQuery, Query()], served: Served, caller: Caller) -> dict[str, Any]:  # noqa: ARG001 - refuses what is unknown
    """List the aliases, those of bases first."""
    data = [_wire(alias, model) for alias, model in served.aliases.page(caller.scope)]
    return {"object": "list", "data": data, "has_more": False}


@router.post(PATH)
def add_alias(body: AddAlias, served: Served, caller: Caller) -> dict[str, Any]:
    """Let a name stand for a tuned model or a base."""
    return _wire(body.alias, served.aliases.add(caller.scope, body.model, body.alias, move=body.move))


@router.delete(f"{PATH}/{{alias:path}}")
def delete_alias(alias: str, served: Served, caller: Caller) -> dict[str, Any]:
    """Free an alias."""
    served.aliases.remove(caller.scope, alias)
    return {"id": alias, "object": "tunesmith.alias", "deleted": True}


def _wire(alias: str, model: str) -> dict[str, Any]:
    return {"object": "tunesmith.alias", "alias": alias, "model": model}
