"""The tables of what projects share, of who changed what, and of what is kept how long, beside the others in `tables.py`."""

from sqlalchemy import JSON, Column, Double, ForeignKey, Index, Integer, String, Table, Text, UniqueConstraint

from tunesmith.store.tables import metadata

#: Other projects that may use a tuned model: `project_id` is who may. A model's go with it.
checkpoint_permissions = Table(
    "checkpoint_permissions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("model", Text, ForeignKey("tuned_models.name", ondelete="CASCADE"), nullable=False),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("project_id", "model"),
    Index(None, "model", "created_at", "id"),
)

#: What was changed, by whom, in whose project; never what was said.
audit = Table(
    "audit",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    #: `admin`, `member`, or `system` for what the server does by itself.
    Column("actor", String(16), nullable=False),
    Column("key_id", String(64)),
    Column("address", String(64)),
    Column("request_id", String(64)),
    Column("action", Text, nullable=False),
    Column("objects", JSON(none_as_null=True), nullable=False),
    Column("status", Integer),
    Index(None, "created_at", "id"),
    Index(None, "project_id", "created_at", "id"),
    Index(None, "key_id", "created_at", "id"),
)

#: What a project lets go, and when; a project without a row lets nothing go.
retention_policies = Table(
    "retention_policies",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("updated_at", Double, nullable=False),
    Column("rules", JSON(none_as_null=True), nullable=False),
)
