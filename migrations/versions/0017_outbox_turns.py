"""Relays take messages of their own, and messages that were sent long ago are found by an index."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("outbox", sa.Column("taken_until", sa.DateTime(timezone=True), nullable=True))
    sent = sa.text("sent_at IS NOT NULL")
    op.create_index(
        "ix_outbox_sent", "outbox", ["sent_at"], sqlite_where=sent, postgresql_where=sent
    )


def downgrade() -> None:
    op.drop_index("ix_outbox_sent", "outbox")
    op.drop_column("outbox", "taken_until")
