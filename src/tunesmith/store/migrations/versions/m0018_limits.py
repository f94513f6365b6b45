"""What a project may have in place of the settings' defaults."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "project_limits",
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("own", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("rates", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("project_id", name="pk_project_limits"),
    )


def downgrade() -> None:
    op.drop_table("project_limits")
