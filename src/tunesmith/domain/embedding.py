"""The socket of embedding models: what is asked of those of this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tunesmith.domain.sampler import Sampler


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors in the order of their inputs, and the tokens of all inputs."""

    vectors: Sequence[Sequence[float]]
    n_tokens: int


class Embedders(Protocol):
    """Embedding models of this machine, by their folders."""

    async def embed(self, path: str, inputs: Sequence[str | list[int]], *, project: str = "") -> Embedded:
        """Return the vectors of texts, or of tokens; raises `Unavailable`, `RateLimited` and `InvalidRequest`."""
        ...

    async def samplers(self) -> Sequence[Sampler]:
        """Return every process there is, those too that are being loaded."""
        ...

    def unload(self, base_path: str) -> None:
        """Let no new request use a model's process."""
        ...

    async def close(self) -> None:
        """Stop every process."""
        ...
