"""Who publishes under a served name now, so that two workers take turns.

Locks: two columns without a default are added to `claims`, which takes an instant.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("claims", sa.Column("publisher_scan_id", sa.String(32), nullable=True))
    op.add_column("claims", sa.Column("publisher_token", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("claims", "publisher_token")
    op.drop_column("claims", "publisher_scan_id")
