"""The results of the workers' detectors on models that are known to be clean or backdoored.

Locks: none that matter, because the table is new and the previous release does not use it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "canaries",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("methods", sa.String(64), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("trials", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_canaries"),
    )
    op.create_index("ix_canaries_worker_methods", "canaries", ["worker", "methods"])


def downgrade() -> None:
    op.drop_table("canaries")
