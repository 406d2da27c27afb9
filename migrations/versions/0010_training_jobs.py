"""Jobs on training sets: a sift or a retraining that somebody asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

OPEN = "ended_at IS NULL"


def upgrade() -> None:
    plain, time = sa.JSON(none_as_null=True), sa.DateTime(timezone=True)
    op.create_table(
        "training_jobs",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("wanted", plain, nullable=False),
        sa.Column("scan_id", sa.String(32), nullable=False),
        sa.Column("artifact_digest", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("budget_seconds", sa.Float(), nullable=False),
        sa.Column("spent_seconds", sa.Float(), nullable=False),
        sa.Column("done", sa.Float(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("seconds_left", sa.Float(), nullable=True),
        sa.Column("cancelled_by", sa.Text(), nullable=True),
        sa.Column("files", plain, nullable=False),
        sa.Column("result", plain, nullable=True),
        sa.Column("child_digest", sa.String(64), nullable=True),
        sa.Column("child_scan_id", sa.String(32), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("code", sa.String(64), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_token", sa.Integer(), nullable=False),
        sa.Column("lease_until", time, nullable=True),
        sa.Column("created_at", time, nullable=False),
        sa.Column("updated_at", time, nullable=False),
        sa.Column("ended_at", time, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_training_jobs"),
        sa.ForeignKeyConstraint(["scan_id"], ["scans.id"], name="fk_training_jobs_scan_id"),
        sa.ForeignKeyConstraint(
            ["child_scan_id"], ["scans.id"], name="fk_training_jobs_child_scan_id"
        ),
        sa.ForeignKeyConstraint(
            ["artifact_digest"], ["artifacts.digest"], name="fk_training_jobs_artifact_digest"
        ),
    )
    for column in ("request", "artifact_digest", "state", "created_at"):
        op.create_index(f"ix_training_jobs_{column}", "training_jobs", [column])
    # The same thing asked for twice is one job.
    op.create_index(
        "uq_training_jobs_open",
        "training_jobs",
        ["request"],
        unique=True,
        sqlite_where=sa.text(OPEN),
        postgresql_where=sa.text(OPEN),
    )


def downgrade() -> None:
    op.drop_table("training_jobs")
