"""Chat completions that were asked to be stored."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "completions",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("metadata", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("body", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("messages", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_completions")),
    )
    op.create_index(
        op.f("ix_completions_project_id_created_at_id"), "completions", ["project_id", "created_at", "id"], unique=False
    )
    op.create_table(
        "completion_metadata",
        sa.Column("completion_id", sa.String(length=64), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["completion_id"],
            ["completions.id"],
            name=op.f("fk_completion_metadata_completion_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("completion_id", "key", name=op.f("pk_completion_metadata")),
    )
    op.create_index(
        op.f("ix_completion_metadata_project_id_key_value"),
        "completion_metadata",
        ["project_id", "key", "value"],
        unique=False,
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_completion_metadata_project_id_key_value"), table_name="completion_metadata")
    op.drop_table("completion_metadata")
    op.drop_index(op.f("ix_completions_project_id_created_at_id"), table_name="completions")
    op.drop_table("completions")
