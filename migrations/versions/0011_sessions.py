"""Browsers that are signed in, people of an identity provider, and projects."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

IN = "removed_at IS NULL"


def upgrade() -> None:
    _people()
    _projects()


def _people() -> None:
    plain, time = sa.JSON(none_as_null=True), sa.DateTime(timezone=True)
    op.create_table(
        "browser_sessions",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("principal", sa.String(64), nullable=False),
        sa.Column("token_ids", plain, nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
        sa.Column("attempt", sa.String(64), nullable=True),
        sa.Column("created_at", time, nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.Column("last_used_at", time, nullable=False),
        sa.Column("ended_at", time, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_browser_sessions"),
        sa.UniqueConstraint("attempt", name="uq_browser_sessions_attempt"),
    )
    for column in ("principal", "expires_at"):
        op.create_index(f"ix_browser_sessions_{column}", "browser_sessions", [column])
    op.create_table(
        "identities",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("principal", sa.String(64), nullable=False),
        sa.Column("groups", plain, nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("last_used_at", time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_identities"),
        sa.UniqueConstraint("issuer", "subject", name="uq_identities_issuer_subject"),
        sa.UniqueConstraint("principal", name="uq_identities_principal"),
        sa.ForeignKeyConstraint(["principal"], ["principals.name"], name="fk_identities_principal"),
    )


def _projects() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "projects",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("cleanset", sa.Text(), nullable=True),
        sa.Column("scans_a_day", sa.Integer(), nullable=True),
        sa.Column("bytes_a_day", sa.BigInteger(), nullable=True),
        sa.Column("open_scans", sa.Integer(), nullable=True),
        sa.Column("priority", sa.String(16), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_projects"),
        sa.UniqueConstraint("bucket", "prefix", name="uq_projects_bucket_prefix"),
    )
    op.create_table(
        "project_members",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("member", sa.Text(), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("removed_at", time, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_project_members"),
        sa.ForeignKeyConstraint(["project"], ["projects.name"], name="fk_project_members_project"),
    )
    op.create_index("ix_project_members_project", "project_members", ["project"])
    op.create_index(
        "uq_project_members_in",
        "project_members",
        ["project", "kind", "member", "role"],
        unique=True,
        sqlite_where=sa.text(IN),
        postgresql_where=sa.text(IN),
    )
    op.create_table(
        "project_uploads",
        sa.Column("scan_id", sa.String(32), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("at", time, nullable=False),
        sa.PrimaryKeyConstraint("scan_id", name="pk_project_uploads"),
        sa.ForeignKeyConstraint(["project"], ["projects.name"], name="fk_project_uploads_project"),
        sa.ForeignKeyConstraint(["scan_id"], ["scans.id"], name="fk_project_uploads_scan_id"),
    )
    op.create_index("ix_project_uploads_project", "project_uploads", ["project", "at"])


def downgrade() -> None:
    for table in ("project_uploads", "project_members", "projects"):
        op.drop_table(table)
    op.drop_table("identities")
    op.drop_table("browser_sessions")
