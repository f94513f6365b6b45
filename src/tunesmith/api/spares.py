"""The spares over HTTP, `/tunesmith/v1/spares`: what waits for the next job, and the memory that it holds meanwhile."""

from typing import Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from tunesmith.api.deps import Served, admin

router = APIRouter(tags=["Spares"])


class WireSpare(BaseModel):
    """A spare: a worker that has imported (`ready`) or still imports (`starting`) what a task of its kind needs."""

    object: Literal["tunesmith.spare"] = "tunesmith.spare"
    kind: str
    status: Literal["starting", "ready"]
    #: Its supervisor's process number.
    pid: int
    memory_bytes: int


class WireSpares(BaseModel):
    """All spares, with the setting that bounds them."""

    object: Literal["list"] = "list"
    data: list[WireSpare]
    has_more: Literal[False] = False
    memory_bytes: int
    max_bytes: int


@router.get("/tunesmith/v1/spares", dependencies=[Depends(admin)])
def list_spares(served: Served) -> WireSpares:
    """List the spares."""
    spares = [
        WireSpare(
            kind=spare.kind,
            status="ready" if spare.ready else "starting",
            pid=spare.pid,
            memory_bytes=spare.memory_bytes,
        )
        for spare in served.spares.list()
    ]
    return WireSpares(
        data=spares,
        memory_bytes=sum(spare.memory_bytes for spare in spares),
        max_bytes=served.settings.warm_spares_max_bytes,
    )
