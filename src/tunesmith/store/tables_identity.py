"""The tables of projects and keys, beside the others in `tables.py`."""

from sqlalchemy import Column, Double, ForeignKey, Index, String, Table, Text, UniqueConstraint

from tunesmith.store.tables import metadata

projects = Table(
    "projects",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("organization_id", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("status", String(16), nullable=False),
    Column("archived_at", Double),
    Index(None, "created_at", "id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    #: None for an admin key, which is every project's.
    Column("project_id", String(64), ForeignKey("projects.id")),
    Column("role", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("hint", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("account_id", String(64)),
    Column("expires_at", Double),
    Column("last_used_at", Double),
    UniqueConstraint("sha256"),
    UniqueConstraint("account_id"),
    Index(None, "project_id", "created_at", "id"),
)
