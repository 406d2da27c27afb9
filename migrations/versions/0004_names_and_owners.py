"""Served names belong to one key prefix and one owner, and uploads have an order.

Every name that was published or is being scanned is claimed for the prefix and the uploader that
it is served from, or whose upload came first where nothing is served. Locks: PostgreSQL locks
`scans` for an instant to add a column without a default, and reads it once to make the claims.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("scans", sa.Column("uploaded_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "claims",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("newest_scan_id", sa.String(32), nullable=True),
        sa.Column("rolled_back_to", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_claims"),
        sa.UniqueConstraint("bucket", "prefix", name="uq_claims_bucket_prefix"),
        sa.ForeignKeyConstraint(["newest_scan_id"], ["scans.id"], name="fk_claims_newest_scan_id"),
    )
    op.create_table(
        "name_acts",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("act", sa.String(16), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_name_acts"),
    )
    op.create_index("ix_name_acts_name", "name_acts", ["name"])
    _append_only()
    _claim_what_is_there()


def downgrade() -> None:
    op.drop_table("name_acts")
    op.drop_table("claims")
    op.drop_column("scans", "uploaded_at")


def _append_only() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for name, when, each in (
            ("append_only", "UPDATE OR DELETE", "ROW"),
            ("no_truncate", "TRUNCATE", "STATEMENT"),
        ):
            op.execute(
                f"CREATE TRIGGER name_acts_{name} BEFORE {when} ON name_acts "
                f"FOR EACH {each} EXECUTE FUNCTION guard_refuse_change()"
            )
        return
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER name_acts_no_{verb.lower()} BEFORE {verb} ON name_acts "
            "BEGIN SELECT RAISE(ABORT, 'name_acts is append-only'); END"
        )


def _claim_what_is_there() -> None:
    bind = op.get_bind()
    scans = sa.table(
        "scans",
        *map(sa.column, ("id", "bucket", "key", "name", "canonical_digest", "submitted_by")),
        sa.column("parent_scan_id"),
        sa.column("created_at", sa.DateTime(timezone=True)),
    )
    publications = sa.table(
        "publications", *map(sa.column, ("name", "digest", "state")), sa.column("at")
    )
    claims = sa.table(
        "claims",
        *map(sa.column, ("name", "bucket", "prefix", "owner", "newest_scan_id")),
        sa.column("since", sa.DateTime(timezone=True)),
    )
    served = {
        (row.name, row.digest)
        for row in bind.execute(sa.select(publications).where(publications.c.state == "active"))
    }
    rows = bind.execute(sa.select(scans).order_by(scans.c.created_at, scans.c.id)).all()
    by_id = {row.id: row for row in rows}

    def root(row: sa.Row) -> sa.Row:
        while row.parent_scan_id is not None:
            row = by_id[row.parent_scan_id]
        return row

    # What is served first, then the oldest: whoever comes later finds the name taken.
    is_served = [row for row in rows if (row.name, row.canonical_digest) in served]
    taken: set[tuple[str, str]] = set()
    made: dict[str, dict[str, object]] = {}
    for row in is_served + [row for row in rows if row.parent_scan_id is None]:
        place = (row.bucket, _prefix(row.key))
        if row.name in made or place in taken:
            continue
        taken.add(place)
        made[row.name] = {
            "name": row.name,
            "bucket": place[0],
            "prefix": place[1],
            "owner": row.submitted_by,
            "since": root(row).created_at,
            "newest_scan_id": None,
        }
    for row in is_served:
        claim = made.get(row.name, {})
        if (claim.get("bucket"), claim.get("prefix")) == (row.bucket, _prefix(row.key)):
            claim["newest_scan_id"] = root(row).id  # by age, so the newest stays
    if made:
        bind.execute(sa.insert(claims), list(made.values()))


def _prefix(key: str) -> str:
    head, slash, _ = key.rpartition("/")
    return head + slash or key
