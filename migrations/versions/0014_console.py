"""The review console: orders, the images that it shows, and what its lists are read by."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    plain, time = sa.JSON(none_as_null=True), sa.DateTime(timezone=True)
    op.create_table(
        "orders",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("act", sa.String(16), nullable=False),
        sa.Column("wanted", plain, nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("token_id", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("result", plain, nullable=True),
        sa.Column("at", time, nullable=False),
        sa.Column("ended_at", time, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_orders"),
    )
    op.create_index("ix_orders_at", "orders", ["at"])
    waits = sa.text("state = 'waiting'")
    op.create_index(
        "ix_orders_waiting", "orders", ["at"], sqlite_where=waits, postgresql_where=waits
    )
    op.create_table(
        "exhibits",
        sa.Column("verdict_id", sa.String(32), nullable=False),
        sa.Column("shown", plain, nullable=False),
        sa.Column("at", time, nullable=False),
        sa.PrimaryKeyConstraint("verdict_id", name="pk_exhibits"),
        sa.ForeignKeyConstraint(["verdict_id"], ["verdicts.id"], name="fk_exhibits_verdict_id"),
    )
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("at", time, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_heartbeats"),
    )
    held = sa.text("verdict = 'held'")
    op.create_index(
        "ix_verdicts_held", "verdicts", ["seq"], sqlite_where=held, postgresql_where=held
    )
    op.create_index("ix_verdicts_expires_at", "verdicts", ["expires_at"])
    op.create_index("ix_uploaders_principal", "uploaders", ["principal"])


def downgrade() -> None:
    op.drop_index("ix_uploaders_principal", "uploaders")
    op.drop_index("ix_verdicts_expires_at", "verdicts")
    op.drop_index("ix_verdicts_held", "verdicts")
    for name in ("heartbeats", "exhibits", "orders"):
        op.drop_table(name)
