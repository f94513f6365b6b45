"""The queue: why a job waits as its events last told it, and what makes a look at ten thousand waiting jobs quick."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("waiting_for", sa.String(length=32), nullable=True))
    op.execute("UPDATE jobs SET queued_at = created_at WHERE queued_at IS NULL")
    op.create_index(
        op.f("ix_jobs_status_queued_at_created_at_id_project_id"),
        "jobs",
        ["status", "queued_at", "created_at", "id", "project_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_jobs_status_waiting_for_queued_at"), "jobs", ["status", "waiting_for", "queued_at"], unique=False
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_jobs_status_waiting_for_queued_at"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_status_queued_at_created_at_id_project_id"), table_name="jobs")
    op.drop_column("jobs", "waiting_for")
