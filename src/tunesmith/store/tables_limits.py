"""The table of what projects may have, beside the others in `tables.py`."""

from sqlalchemy import JSON, Column, String, Table

from tunesmith.store.tables import metadata

project_limits = Table(
    "project_limits",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("own", JSON(none_as_null=True), nullable=False),
    Column("rates", JSON(none_as_null=True), nullable=False),
)
