"""Permissions: a tuned model or checkpoint of one project that another one may use."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Permission:
    """One project's permission to use one model."""

    id: str
    #: Who may use it; whose it is stands in the model's row.
    project_id: str
    model: str
    created_at: float
