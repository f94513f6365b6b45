"""Who looks: the role of the browser's key and what it may do, so that no page offers what the server would refuse."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Me:
    """The visitor, as the server tells of them; without an answer nobody, who may only look."""

    role: str = "reader"
    project_id: str = ""
    project: str = ""
    #: None where no keys are needed.
    key_id: str | None = None
    changes: bool = False
    administers: bool = False

    @classmethod
    def told(cls, answer: Mapping[str, Any]) -> Self:
        """Return who the answer of `/tunesmith/v1/me` is about."""
        project, key, may = answer["project"], answer["key"], answer["may"]
        key_id = None if key is None else key["id"]
        return cls(answer["role"], project["id"], project["name"], key_id, may["change"], may["administer"])

    @property
    def why_not(self) -> str:
        """Why nothing can be changed; empty for whom it can."""
        if self.changes:
            return ""
        return (
            f"This key's role is '{self.role}': it sees everything of the project {self.project} and changes nothing. "
            "To change something, log in with a member's key."
        )
