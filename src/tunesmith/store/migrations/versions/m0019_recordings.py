"""What organisations register with other services, and the jobs that are told to trackers of experiments."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "integrations",
        sa.Column("organization_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "kind", name="pk_integrations"),
    )
    op.create_table(
        "recordings",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("organization_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("target", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("sent_step", sa.Integer(), nullable=True),
        sa.Column("sent_at", sa.Double(), nullable=True),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("n_failures", sa.Integer(), nullable=False),
        sa.Column("next_try_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "place", name="pk_recordings"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_recordings_job_id_jobs", ondelete="CASCADE"),
    )
    op.create_index("ix_recordings_status_next_try_at", "recordings", ["status", "next_try_at"])


def downgrade() -> None:
    op.drop_table("recordings")
    op.drop_table("integrations")
