"""Lists of jobs by metadata as walks along an index: a pair knows when its job was created; jobs without have their own."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_job_metadata_project_id_key_value", table_name="job_metadata")
    op.add_column("job_metadata", sa.Column("created_at", sa.Double(), nullable=True))
    op.execute("UPDATE job_metadata SET created_at = (SELECT jobs.created_at FROM jobs WHERE jobs.id = job_metadata.job_id)")
    with op.batch_alter_table("job_metadata") as table:
        table.alter_column("created_at", existing_type=sa.Double(), nullable=False)
    op.create_index(
        "ix_job_metadata_project_id_key_value_created_at_job_id",
        "job_metadata",
        ["project_id", "key", "value", "created_at", "job_id"],
    )
    op.create_index(
        "ix_jobs_without_metadata",
        "jobs",
        ["project_id", "created_at", "id"],
        sqlite_where=sa.text("metadata IS NULL"),
        postgresql_where=sa.text("metadata IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_without_metadata", table_name="jobs")
    op.drop_index("ix_job_metadata_project_id_key_value_created_at_job_id", table_name="job_metadata")
    op.drop_column("job_metadata", "created_at")
    op.create_index("ix_job_metadata_project_id_key_value", "job_metadata", ["project_id", "key", "value"])
