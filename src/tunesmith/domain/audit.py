"""The audit log: who changed what, from where, and when; never what was said."""

from dataclasses import dataclass, field
from typing import Final

#: The actor of what the server does by itself.
SYSTEM: Final = "system"


@dataclass(frozen=True, slots=True)
class Entry:
    """One change."""

    id: str
    #: In whose name the change was made; what it concerns can be another project's where an admin made it.
    project_id: str
    created_at: float
    #: The role of the key, or `SYSTEM`.
    actor: str
    #: The verb and the route (`POST /v1/files`), or for the server's own changes what they are (`job.failed`).
    action: str
    #: The ids and names of what the path names and the answer tells.
    objects: list[str] = field(default_factory=list[str])
    #: None without keys, and for the server's own changes.
    key_id: str | None = None
    address: str | None = None
    request_id: str | None = None
    #: Of the answer.
    status: int | None = None
