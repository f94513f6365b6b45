"""The tables of what jobs are told to: the keys of other services, and how telling goes."""

from sqlalchemy import JSON, Column, Double, ForeignKey, Index, Integer, String, Table, Text

from tunesmith.store.tables import metadata

#: What an organisation has registered with other services; its projects share it.
integrations = Table(
    "integrations",
    metadata,
    Column("organization_id", String(64), primary_key=True),
    Column("kind", String(32), primary_key=True),
    Column("secret", Text, nullable=False),
    Column("base_url", Text),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

#: Jobs that are told to trackers of experiments.
recordings = Table(
    "recordings",
    metadata,
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("organization_id", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("target", JSON(none_as_null=True), nullable=False),
    Column("status", String(16), nullable=False),
    Column("sent_step", Integer),
    Column("sent_at", Double),
    Column("url", Text),
    Column("error", Text),
    Column("n_failures", Integer, nullable=False),
    Column("next_try_at", Double, nullable=False),
    Index(None, "status", "next_try_at"),
)
