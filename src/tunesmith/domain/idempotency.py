"""What tells a request again when it is sent once more, and the answer that is kept for it meanwhile."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it is recognised."""

    #: SHA-256 of its verb, path, query and what its body says.
    fingerprint: str
    #: What the client called it by; None when it gave it no name.
    key: str | None = None
    #: How often its client says to have sent it before.
    n_retries: int = 0


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer as it can be given once more."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """A request with its answer, kept for a while."""

    id: str
    project_id: str
    created_at: float
    expires_at: float
    key: str | None
    fingerprint: str
    n_retries: int
    status: int
    headers: dict[str, str]
    body: bytes
