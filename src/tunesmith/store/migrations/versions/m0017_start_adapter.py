"""Jobs are found by the adapter that they started from, so that what nothing stands on is known without reading all jobs."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_jobs_start_adapter", "jobs", ["start_adapter"])


def downgrade() -> None:
    op.drop_index("ix_jobs_start_adapter", table_name="jobs")
