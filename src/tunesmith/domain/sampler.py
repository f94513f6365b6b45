"""A process that keeps a base in memory, as the server sees it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sampler:
    """A process that keeps a base in memory."""

    base_path: str
    #: `sampler`, `embedding` or `vllm`.
    kind: str
    #: `loading`, `ready`, or `silent` where it does not say what it is at.
    status: str
    pid: int | None
    #: Answers that are computed, and requests that wait for that.
    rows: int
    waiting: int
    #: Resident beside the base, the least recently used first.
    adapters: tuple[str, ...]
    #: What it holds of answers under way, and what the process holds in all, the weights included.
    cache_bytes: int
    memory_bytes: int
