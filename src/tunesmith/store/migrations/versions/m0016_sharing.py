"""Permissions of other projects to use a tuned model, the audit log, and what a project keeps how long."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "checkpoint_permissions",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_checkpoint_permissions"),
        sa.ForeignKeyConstraint(
            ["model"], ["tuned_models.name"], name="fk_checkpoint_permissions_model_tuned_models", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("project_id", "model", name="uq_checkpoint_permissions_project_id_model"),
    )
    op.create_index("ix_checkpoint_permissions_model_created_at_id", "checkpoint_permissions", ["model", "created_at", "id"])
    op.create_table(
        "audit",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("actor", sa.String(16), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=True),
        sa.Column("address", sa.String(64), nullable=True),
        sa.Column("request_id", sa.String(64), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("objects", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_created_at_id", "audit", ["created_at", "id"])
    op.create_index("ix_audit_project_id_created_at_id", "audit", ["project_id", "created_at", "id"])
    op.create_index("ix_audit_key_id_created_at_id", "audit", ["key_id", "created_at", "id"])
    op.create_table(
        "retention_policies",
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("rules", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("project_id", name="pk_retention_policies"),
    )


def downgrade() -> None:
    op.drop_table("retention_policies")
    op.drop_table("audit")
    op.drop_table("checkpoint_permissions")
