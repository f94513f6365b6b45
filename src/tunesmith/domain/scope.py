"""Whose rows a query may see: a project's, or every project's for the server's own work."""

from dataclasses import dataclass
from typing import Final

DEFAULT_ORGANIZATION: Final = "org-default"
DEFAULT_PROJECT: Final = "proj_default"


@dataclass(frozen=True, slots=True)
class Project:
    """The rows of one project."""

    project_id: str
    organization_id: str = DEFAULT_ORGANIZATION


@dataclass(frozen=True, slots=True)
class Everywhere:
    """The rows of every project: for the scheduler, recovery and retention, never for a request."""

    reason: str
    """Why the caller may look across projects; it stands beside the call for its reader."""


Scope = Project | Everywhere
