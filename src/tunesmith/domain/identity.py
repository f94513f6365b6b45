"""Who may call: an organisation's projects and the keys to them; a key's text is shown once and kept as a hash.

The hash is one round of SHA-256 without salt. A key is 256 random bits, so there is nothing to guess that a slow hash would
protect, and a look-up by the hash takes no longer for a key that is nearly right.
"""

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

#: What a key may do: everything everywhere; everything in its project; look at its project.
Role = Literal["admin", "member", "reader"]
ProjectStatus = Literal["active", "archived"]

#: Of a key, as much as tells two of them apart: its first and its last characters.
N_FIRST: Final = 4
N_LAST: Final = 4
#: The id of the key that the environment gives.
ENVIRONMENT: Final = "key_environment"


@dataclass(frozen=True, slots=True)
class NamedProject:
    """A project: what belongs to it is nobody else's."""

    id: str
    organization_id: str
    name: str
    created_at: float
    status: ProjectStatus = "active"
    archived_at: float | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A key, without its text."""

    id: str
    #: None for an admin key, which is every project's.
    project_id: str | None
    role: Role
    name: str
    sha256: str
    #: The text with its middle left out.
    hint: str
    created_at: float
    #: The service account that has the key, for a project's key; it has this one alone.
    account_id: str | None = None
    expires_at: float | None = None
    last_used_at: float | None = None


def hashed(secret: bytes) -> str:
    """Return what is kept of a key's text."""
    return hashlib.sha256(secret).hexdigest()


def masked(secret: str, prefix: str = "") -> str:
    """Return a text with its middle left out: enough to know it by, too little to use."""
    hidden = len(secret) - len(prefix) - N_FIRST - N_LAST
    if hidden < N_FIRST + N_LAST:
        return "*" * min(len(secret), N_FIRST + N_LAST)
    return f"{secret[: len(prefix) + N_FIRST]}{'*' * N_FIRST}{secret[-N_LAST:]}"
