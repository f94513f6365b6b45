"""The samplers over HTTP, `/tunesmith/v1/samplers`: the bases in memory, what each is at, and what it holds."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from tunesmith.api.deps import Caller, Served

router = APIRouter(tags=["Samplers"])


class WireSampler(BaseModel):
    """A base in memory: answers under way (`rows`), requests that wait, the project's adapters beside it."""

    object: Literal["tunesmith.sampler"] = "tunesmith.sampler"
    base: str
    #: `sampler`, `embedding` or `vllm`; of the last, what its server holds is not told.
    kind: str
    status: str
    pid: int | None
    rows: int
    waiting: int
    adapters: list[str]
    #: Of what the process holds, the part for answers under way.
    cache_bytes: int
    memory_bytes: int


class WireSamplers(BaseModel):
    """All samplers, with the setting that bounds who waits for each."""

    object: Literal["list"] = "list"
    data: list[WireSampler]
    has_more: Literal[False] = False
    max_waiting: int


@router.get("/tunesmith/v1/samplers")
async def list_samplers(served: Served, caller: Caller) -> WireSamplers:
    """List the samplers."""
    found = await served.samplers.seen_by(caller.scope)
    return WireSamplers(
        data=[
            WireSampler(
                base=base,
                kind=sampler.kind,
                status=sampler.status,
                pid=sampler.pid,
                rows=sampler.rows,
                waiting=sampler.waiting,
                adapters=list(sampler.adapters),
                cache_bytes=sampler.cache_bytes,
                memory_bytes=sampler.memory_bytes,
            )
            for base, sampler in found
        ],
        max_waiting=served.settings.sampler_queue,
    )
