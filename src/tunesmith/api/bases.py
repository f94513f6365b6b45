"""Base models over HTTP, `/tunesmith/v1/models`: ours alone, since OpenAI has no way to bring a model."""

from typing import Any, Literal

from anyio import to_thread
from fastapi import APIRouter
from pydantic import BaseModel, Field

from tunesmith.api.deps import Served
from tunesmith.api.wire import Text, WireRequest
from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.model import Base

router = APIRouter(tags=["Base models"])

PATH = "/tunesmith/v1/models"


class AddUpstream(WireRequest):
    """A model of a server that speaks OpenAI's wire: the base URL, its name there, and the variable that holds the key."""

    url: Text
    model: Text | None = None
    key_env: Text | None = None


class AddBase(WireRequest):
    """What to register, and the names it shall answer to."""

    name: str
    source: str | None = None
    kind: Literal["embedding"] | None = None
    upstream: AddUpstream | None = None
    aliases: list[str] = Field(default_factory=list[str])


class WireUpstream(BaseModel):
    """What a model upstream is at its server, and what it was found to be able to do."""

    model: str
    key_env: str | None
    abilities: list[str]
    reasoning_efforts: list[str]


class WireBase(BaseModel):
    """A base model as the wire shows it; the numbers are null while it is loading, and for a model upstream."""

    object: Literal["tunesmith.base_model"] = "tunesmith.base_model"
    name: str
    kind: str
    source: str
    path: str | None
    status: str
    detail: str | None
    aliases: list[str]
    created_at: int
    architecture: str | None
    context_length: int | None
    n_parameters: int | None
    weights_bytes: int | None
    pins: dict[str, str]
    downloaded_bytes: int | None
    total_bytes: int | None
    upstream: WireUpstream | None


class WireBases(BaseModel):
    """All base models, oldest first."""

    object: Literal["list"] = "list"
    data: list[WireBase]
    has_more: Literal[False] = False


@router.post(PATH)
async def add_base(body: AddBase, served: Served) -> WireBase:
    """Register a folder (ready at once), a hub repository (`loading` until it is downloaded) or a model upstream, or add
    aliases.
    """
    there = body.upstream
    if body.kind == "embedding":
        if there is not None:
            raise InvalidRequest(
                "Of a model 'upstream' it is found out what it does: leave 'kind' out - 'kind'", param="kind"
            )
        return _wire(await served.embeddings.add(body.name, body.source, body.aliases))
    if there is None:
        return _wire(await to_thread.run_sync(served.bases.add, body.name, body.source, body.aliases))
    if body.source is not None:
        raise InvalidRequest(
            "A model comes from a 'source' or from a server 'upstream': leave one out - 'source'", param="source"
        )
    added = await served.upstreams.add(body.name, there.url, model=there.model, key_env=there.key_env, aliases=body.aliases)
    return _wire(added)


@router.get(PATH)
def list_bases(served: Served) -> WireBases:
    """List the base models."""
    return WireBases(data=[_wire(base) for base in served.bases.list()])


@router.get(f"{PATH}/{{name}}")
def get_base(name: str, served: Served) -> WireBase:
    """Retrieve a base model by its name or an alias."""
    return _wire(served.bases.get(name))


@router.delete(f"{PATH}/{{name}}")
def delete_base(name: str, served: Served) -> dict[str, Any]:
    """Remove a base model, or only the alias when `name` is one."""
    served.bases.remove(name)
    return {"id": name, "object": "tunesmith.base_model", "deleted": True}


def _wire(base: Base) -> WireBase:
    there = base.upstream
    return WireBase(
        name=base.name,
        kind=base.kind,
        source=base.source,
        path=base.path or None,
        status=base.status,
        detail=base.detail,
        aliases=base.aliases,
        created_at=int(base.created_at),
        architecture=base.architecture or None,
        context_length=base.context_length or None,
        n_parameters=base.n_parameters or None,
        weights_bytes=base.weights_bytes or None,
        pins=base.pins,
        downloaded_bytes=base.downloaded_bytes,
        total_bytes=base.total_bytes,
        upstream=None
        if there is None
        else WireUpstream(
            model=there.model, key_env=there.key_env, abilities=there.abilities, reasoning_efforts=there.efforts
        ),
    )
