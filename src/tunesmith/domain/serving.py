"""The socket of vLLM servers that this server starts itself, each for one base that is tuned here."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from tunesmith.domain.ports import Endpoint
from tunesmith.domain.sampler import Sampler

#: What a base is called at a server of its own: no adapter has that name.
OWN_MODEL: Final = "base"


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A server that was started, and whether it has come to serve."""

    at: Endpoint
    ready: bool


class OwnServers(Protocol):
    """Servers by the paths of their bases, each started when it is needed."""

    @property
    def available(self) -> bool:
        """Whether there is a vLLM to start."""
        ...

    def serving(self, base_path: str) -> AbstractAsyncContextManager[Endpoint]:
        """Have a base's server serve for the length of a block; raises `Unavailable` and `RateLimited`."""
        ...

    async def bury(self, base_path: str, at: Endpoint) -> None:
        """End a base's server, if it is still the one at this place."""
        ...

    def seen(self, base_path: str) -> OwnServer | None:
        """Return a base's server; None where it is not started."""
        ...

    def unload(self, base_path: str) -> None:
        """Let no new request use a base's server, from any thread; it ends with its last answer."""
        ...

    async def samplers(self) -> Sequence[Sampler]:
        """Return every server there is, those too that are being started."""
        ...

    async def close(self) -> None:
        """Stop every server."""
        ...
