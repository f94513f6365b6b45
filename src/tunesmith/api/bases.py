"""Base models over HTTP, `/tunesmith/v1/models`: ours alone, since OpenAI has no way to bring a model."""

import asyncio
from typing import Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from tunesmith.api.deps import Served, admin
from tunesmith.api.wire import Text, WireRequest
from tunesmith.core.errors import InvalidRequest
from tunesmith.domain.model import Base
from tunesmith.services.vllm import Serving

router = APIRouter(tags=["Base models"])

PATH = "/tunesmith/v1/models"


class AddUpstream(WireRequest):
    """A model of a server that speaks OpenAI's wire: the base URL, its name there, and the variable that holds the key.

    A vLLM server is given adapters by their paths: `adapters_dir` is what it sees our blobs under.
    """

    url: Text
    model: Text | None = None
    key_env: Text | None = None
    adapters_dir: Text | None = None


class AddBase(WireRequest):
    """What to register, and the names it shall answer to."""

    name: str
    source: str | None = None
    kind: Literal["embedding", "vllm"] | None = None
    upstream: AddUpstream | None = None
    aliases: list[str] = Field(default_factory=list[str])


class WireUpstream(BaseModel):
    """What a model upstream is at its server, and what it was found to be able to do."""

    model: str
    key_env: str | None
    abilities: list[str]
    reasoning_efforts: list[str]


class WireServing(BaseModel):
    """How the vLLM server of a base is; `url` is null for one of this server's own that is not started, `adapters` the
    number that it has loaded, null where it does not say.
    """

    url: str | None
    healthy: bool
    detail: str | None
    adapters: int | None
    adapters_dir: str | None


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
    serving: WireServing | None


class WireBases(BaseModel):
    """All base models, oldest first."""

    object: Literal["list"] = "list"
    data: list[WireBase]
    has_more: Literal[False] = False


@router.post(PATH, dependencies=[Depends(admin)])
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
    if body.kind == "vllm":
        if body.source is None:
            raise InvalidRequest(
                "A model of kind 'vllm' is tuned from a folder, its 'source', and served by a server, its 'upstream', or by "
                "one that is started here: say the folder - 'source'",
                param="source",
            )
        if there is None:
            added = await served.upstreams.add_own(body.name, body.source, body.aliases)
            return _wire(added, await served.vllm.seen(added))
    elif there is not None and there.adapters_dir is not None:
        raise InvalidRequest(
            "Only a model of kind 'vllm' is given adapters: leave it out - 'upstream.adapters_dir'",
            param="upstream.adapters_dir",
        )
    if there is None:
        return _wire(await to_thread.run_sync(served.bases.add, body.name, body.source, body.aliases))
    if body.source is not None and body.kind != "vllm":
        raise InvalidRequest(
            "A model comes from a 'source' or from a server 'upstream', unless its 'kind' is 'vllm': leave one out - "
            "'source'",
            param="source",
        )
    added = await served.upstreams.add(
        body.name,
        there.url,
        model=there.model,
        key_env=there.key_env,
        aliases=body.aliases,
        folder=body.source,
        adapters_dir=there.adapters_dir,
    )
    return _wire(added, await served.vllm.seen(added))


@router.get(PATH)
async def list_bases(served: Served) -> WireBases:
    """List the base models."""
    bases = await to_thread.run_sync(served.bases.list)
    seen = await asyncio.gather(*map(served.vllm.seen, bases))
    return WireBases(data=list(map(_wire, bases, seen)))


@router.get(f"{PATH}/{{name}}")
async def get_base(name: str, served: Served) -> WireBase:
    """Retrieve a base model by its name or an alias."""
    base = await to_thread.run_sync(served.bases.get, name)
    return _wire(base, await served.vllm.seen(base))


@router.delete(f"{PATH}/{{name}}", dependencies=[Depends(admin)])
def delete_base(name: str, served: Served) -> dict[str, Any]:
    """Remove a base model, or only the alias when `name` is one."""
    served.bases.remove(name)
    return {"id": name, "object": "tunesmith.base_model", "deleted": True}


def _wire(base: Base, seen: Serving | None = None) -> WireBase:
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
        serving=None
        if seen is None
        else WireServing(
            url=seen.url,
            healthy=seen.healthy,
            detail=seen.detail,
            adapters=seen.n_adapters,
            adapters_dir=None if there is None else there.adapters_dir,
        ),
    )
