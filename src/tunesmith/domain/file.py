"""Uploaded and produced files: the row; the bytes lie in the blob store under `key`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class File:
    """One file object."""

    id: str
    project_id: str
    organization_id: str
    created_at: float
    filename: str
    purpose: str
    bytes: int
    sha256: str
    key: str
    expires_at: float | None = None
