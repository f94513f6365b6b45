"""A stored chat completion: the row, with what was answered and the messages that it answers."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Completion:
    """One stored chat completion."""

    id: str
    project_id: str
    created_at: float
    model: str
    metadata: dict[str, str]
    #: The object as the wire shows it, without its metadata.
    body: dict[str, Any]
    #: The messages of the request.
    messages: list[dict[str, Any]]
