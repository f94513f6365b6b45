"""A stored response: the row, with the items that were sent and the object as it was answered."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One stored response."""

    id: str
    project_id: str
    created_at: float
    expires_at: float | None
    #: The response that it goes on from.
    previous_id: str | None
    #: The items of its own request, each with an id.
    input: list[dict[str, Any]]
    #: The object as the wire shows it.
    body: dict[str, Any]

    @property
    def items(self) -> list[dict[str, Any]]:
        """What it adds to a conversation: what was sent, then what was answered."""
        return [*self.input, *self.body["output"]]
