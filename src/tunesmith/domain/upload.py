"""Uploads in parts: what is being uploaded, and the parts that have come."""

from dataclasses import dataclass
from typing import Literal

UploadStatus = Literal["pending", "completed", "cancelled", "expired"]


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that comes in parts."""

    id: str
    project_id: str
    organization_id: str
    created_at: float
    #: When a pending one ends; its parts go then.
    expires_at: float
    filename: str
    purpose: str
    #: What all parts are to have together.
    bytes: int
    #: When its file goes, in seconds after that one's creation.
    expires_after_s: int | None = None
    status: UploadStatus = "pending"
    #: Of a completed one: its file, and the parts that it was made of, in order.
    file_id: str | None = None
    part_ids: list[str] | None = None
    #: What has come so far, in however many parts.
    received_bytes: int = 0
    #: Whether bytes of parts may still be in the store.
    has_parts: bool = True

    @property
    def prefix(self) -> str:
        """Where the parts lie in the blob store."""
        return f"uploads/{self.id}"


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of an upload."""

    id: str
    upload_id: str
    project_id: str
    created_at: float
    bytes: int

    @property
    def key(self) -> str:
        """Where its bytes lie in the blob store."""
        return f"uploads/{self.upload_id}/{self.id}"
