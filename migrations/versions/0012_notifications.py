"""Notifications: destinations, events, deliveries and the log of their tries."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

NEW, OPEN = "fanned_out_at IS NULL", "ended_at IS NULL"


def upgrade() -> None:
    plain, time = sa.JSON(none_as_null=True), sa.DateTime(timezone=True)
    op.create_table(
        "hooks",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("shown", sa.Text(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("types", plain, nullable=False),
        sa.Column("prefixes", plain, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("removed_at", time, nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("resting_until", time, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_hooks"),
    )
    op.create_table(
        "hook_events",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("data", plain, nullable=False),
        sa.Column("at", time, nullable=False),
        sa.Column("fanned_out_at", time, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_hook_events"),
    )
    op.create_index("ix_hook_events_at", "hook_events", ["at"])
    op.create_index(
        "ix_hook_events_new",
        "hook_events",
        ["at"],
        sqlite_where=sa.text(NEW),
        postgresql_where=sa.text(NEW),
    )
    _deliveries(time)


def _deliveries(time: sa.DateTime) -> None:
    op.create_table(
        "deliveries",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("event_id", sa.String(32), nullable=False),
        sa.Column("hook_id", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", time, nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("ended_at", time, nullable=True),
        sa.PrimaryKeyConstraint("seq", name="pk_deliveries"),
        sa.UniqueConstraint("id", name="uq_deliveries_id"),
        sa.ForeignKeyConstraint(["event_id"], ["hook_events.id"], name="fk_deliveries_event_id"),
        sa.ForeignKeyConstraint(["hook_id"], ["hooks.id"], name="fk_deliveries_hook_id"),
        sa.UniqueConstraint("event_id", "hook_id", name="uq_deliveries_event_id_hook_id"),
    )
    op.create_index(
        "ix_deliveries_waiting",
        "deliveries",
        ["hook_id", "next_at"],
        sqlite_where=sa.text(OPEN),
        postgresql_where=sa.text(OPEN),
    )
    op.create_table(
        "delivery_attempts",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("delivery_id", sa.String(32), nullable=False),
        sa.Column("at", time, nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_delivery_attempts"),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name="fk_delivery_attempts_delivery_id"
        ),
    )
    op.create_index("ix_delivery_attempts_delivery_id", "delivery_attempts", ["delivery_id"])


def downgrade() -> None:
    for table in ("delivery_attempts", "deliveries", "hook_events", "hooks"):
        op.drop_table(table)
