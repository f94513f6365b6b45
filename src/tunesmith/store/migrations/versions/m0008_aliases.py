"""Further names of tuned models."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "aliases",
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "name", name="pk_aliases"),
        sa.ForeignKeyConstraint(["model"], ["tuned_models.name"], name="fk_aliases_model_tuned_models", ondelete="CASCADE"),
    )
    op.create_index("ix_aliases_model", "aliases", ["model"])


def downgrade() -> None:
    op.drop_table("aliases")
