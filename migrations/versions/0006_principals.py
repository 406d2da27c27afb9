"""Principals with tokens, owners of prefixes, who uploaded each scan, and the acts of principals.

Four eyes now look at the owners of an upload's key, of its parent and of the same bytes, beside the
uploader that older rows name. Locks: the trigger of `reviews` is replaced, and `scans` gets one;
both take an instant.
"""
# ruff: noqa: S608 - the SQL is put together from constants

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

APPEND_ONLY = ("principals", "uploaders", "acts")
_OLD = (
    "SELECT 1 FROM verdicts JOIN scans ON scans.id = verdicts.scan_id "
    "WHERE verdicts.id = NEW.verdict_id AND scans.submitted_by = NEW.reviewer"
)
_DIGESTS = (
    "(s.upload_digest, s.canonical_digest, p.upload_digest, p.canonical_digest, v.artifact_digest)"
)
# s is the scan of the verdict, p its parent, r each scan of these or of the same bytes.
_NEW = (
    "SELECT 1 FROM verdicts v JOIN scans s ON s.id = v.scan_id "
    "LEFT JOIN scans p ON p.id = s.parent_scan_id "
    f"JOIN scans r ON r.id = s.id OR r.id = p.id OR r.upload_digest IN {_DIGESTS} "
    f"OR r.canonical_digest IN {_DIGESTS} "
    "WHERE v.id = NEW.verdict_id AND (r.submitted_by = NEW.reviewer "
    "OR EXISTS (SELECT 1 FROM uploaders u "
    "WHERE u.scan_id = r.id AND u.principal = NEW.reviewer) "
    "OR EXISTS (SELECT 1 FROM prefix_owners o WHERE o.principal = NEW.reviewer "
    "AND o.removed_at IS NULL AND o.bucket = r.bucket "
    "AND substr(r.key, 1, length(o.prefix)) = o.prefix))"
)
_INHERIT = (
    "INSERT INTO uploaders (scan_id, principal) "
    "SELECT NEW.id, principal FROM uploaders WHERE scan_id = NEW.parent_scan_id"
)


def upgrade() -> None:
    _tables()
    if op.get_bind().dialect.name == "postgresql":
        for table in APPEND_ONLY:
            op.execute(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION guard_refuse_change()"
            )
            op.execute(
                f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION guard_refuse_change()"
            )
        op.execute(
            "CREATE FUNCTION guard_inherit_uploaders() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN {_INHERIT}; RETURN NULL; END $$"
        )
        op.execute(
            "CREATE TRIGGER scans_inherit_uploaders AFTER INSERT ON scans FOR EACH ROW "
            "WHEN (NEW.parent_scan_id IS NOT NULL) EXECUTE FUNCTION guard_inherit_uploaders()"
        )
    else:
        for table in APPEND_ONLY:
            for verb in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
                )
        op.execute(
            "CREATE TRIGGER scans_inherit_uploaders AFTER INSERT ON scans "
            f"WHEN NEW.parent_scan_id IS NOT NULL BEGIN {_INHERIT}; END"
        )
    _four_eyes(_NEW)


def downgrade() -> None:
    _four_eyes(_OLD)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER scans_inherit_uploaders ON scans")
        op.execute("DROP FUNCTION guard_inherit_uploaders()")
    else:
        op.execute("DROP TRIGGER scans_inherit_uploaders")
    for table in ("acts", "uploaders", "prefix_owners", "tokens", "principals"):
        op.drop_table(table)


def _four_eyes(uploader: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        # The trigger that calls it is that of the first migration.
        op.execute(
            "CREATE OR REPLACE FUNCTION guard_four_eyes() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF NEW.decision = 'approve' AND EXISTS ({uploader}) THEN "
            "RAISE EXCEPTION 'reviews: the uploader may not approve' USING ERRCODE = "
            "'integrity_constraint_violation'; END IF; RETURN NEW; END $$"
        )
        return
    op.execute("DROP TRIGGER reviews_four_eyes")
    op.execute(
        "CREATE TRIGGER reviews_four_eyes BEFORE INSERT ON reviews "
        f"WHEN NEW.decision = 'approve' AND EXISTS ({uploader}) "
        "BEGIN SELECT RAISE(ABORT, 'reviews: the uploader may not approve'); END"
    )


def _text(name: str, length: int | None = None) -> sa.Column:
    return sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False)


def _time(name: str, *, null: bool = False) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=null)


def _principal(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["principal"], ["principals.name"], name=f"fk_{table}_principal")


def _tables() -> None:
    op.create_table(
        "principals",
        _text("name", 64),
        _time("created_at"),
        sa.PrimaryKeyConstraint("name", name="pk_principals"),
    )
    op.create_table(
        "tokens",
        _text("id", 32),
        _text("principal", 64),
        _text("role", 16),
        _text("hash", 64),
        _time("created_at"),
        _time("expires_at"),
        _time("revoked_at", null=True),
        _time("last_used_at", null=True),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        _principal("tokens"),
    )
    op.create_index("ix_tokens_principal", "tokens", ["principal"])
    op.create_table(
        "prefix_owners",
        _text("id", 32),
        _text("bucket"),
        _text("prefix"),
        _text("principal", 64),
        _time("created_at"),
        _time("removed_at", null=True),
        sa.PrimaryKeyConstraint("id", name="pk_prefix_owners"),
        _principal("prefix_owners"),
    )
    op.create_index("ix_prefix_owners_principal", "prefix_owners", ["principal"])
    op.create_table(
        "uploaders",
        _text("scan_id", 32),
        _text("principal", 64),
        sa.PrimaryKeyConstraint("scan_id", "principal", name="pk_uploaders"),
        sa.ForeignKeyConstraint(["scan_id"], ["scans.id"], name="fk_uploaders_scan_id"),
    )
    op.create_table(
        "acts",
        sa.Column("seq", sa.Integer(), nullable=False, autoincrement=True),
        _text("act", 16),
        _text("principal"),
        _text("role", 16),
        sa.Column("authenticated", sa.Boolean(), nullable=False),
        _text("token_id", 32),
        _text("subject"),
        _text("detail"),
        _time("at"),
        sa.PrimaryKeyConstraint("seq", name="pk_acts"),
    )
    op.create_index("ix_acts_principal", "acts", ["principal"])
