"""A policy of its own for a project."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("policy", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("projects", "policy")
