"""Models of servers upstream among the bases."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("bases", sa.Column("upstream", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.execute("DELETE FROM bases WHERE kind = 'upstream'")
    op.drop_column("bases", "upstream")
