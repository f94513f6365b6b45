"""Integrations: what an organisation has registered with another service, so that its jobs may use it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Integration:
    """An organisation's key of a service; `kind` is the integration's type in a job."""

    organization_id: str
    kind: str
    #: Sealed, as it lies in the database.
    secret: str
    #: Where the service is, for a server of one's own; None is where its package finds it.
    base_url: str | None
    created_at: float
    updated_at: float
