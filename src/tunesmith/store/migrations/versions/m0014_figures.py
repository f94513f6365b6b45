"""An index that holds all that a monitor asks of the jobs, which else is a walk through the whole table at every look."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_NAME = "ix_jobs_status_project_id_trained_tokens"


def upgrade() -> None:
    op.create_index(op.f(_NAME), "jobs", ["status", "project_id", "trained_tokens"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f(_NAME), table_name="jobs")
