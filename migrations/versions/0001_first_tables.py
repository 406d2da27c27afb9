"""The first tables, and the triggers that keep some of them append-only.

Append-only are verdicts, evidence, reviews and revocations. Locks: none that matter, because the
tables are new. Column types are spelled in plain SQLAlchemy, not taken from `guard.store.types`, so
that this file keeps its meaning when that one changes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("verdicts", "evidence", "reviews", "revocations")
# In the order of dropping: each stands before the tables that it refers to.
TABLES = (
    "reviews",
    "verdicts",
    "publications",
    "nominations",
    "evidence",
    "scans",
    "revocations",
    "outbox",
    "methods",
    "dead_letters",
    "cleansets",
    "artifacts",
    "alarms",
)


def upgrade() -> None:
    _work()
    _verdicts()
    _serving()
    _messages()
    _append_only()
    _four_eyes()


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)  # drops its indexes and triggers too
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION guard_refuse_change()")
        op.execute("DROP FUNCTION guard_four_eyes()")


def _col(name: str, kind: sa.types.TypeEngine, *, null: bool = False) -> sa.Column:
    return sa.Column(name, kind, nullable=null)


def _id(name: str, *, null: bool = False) -> sa.Column:
    return _col(name, sa.String(32), null=null)


def _digest(name: str, *, null: bool = False) -> sa.Column:
    return _col(name, sa.String(64), null=null)


def _text(name: str, *, null: bool = False) -> sa.Column:
    return _col(name, sa.Text(), null=null)


def _code(name: str, length: int = 16) -> sa.Column:
    return _col(name, sa.String(length))


def _number(name: str) -> sa.Column:
    return _col(name, sa.Integer())


def _time(name: str, *, null: bool = False) -> sa.Column:
    return _col(name, sa.DateTime(timezone=True), null=null)


def _json(name: str, *, null: bool = False) -> sa.Column:
    return _col(name, sa.JSON(none_as_null=True), null=null)


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=f"pk_{table}")


def _refers(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    # No ON DELETE anywhere: the records about an artifact must never be deleted with it.
    return sa.ForeignKeyConstraint([column], [target], name=f"fk_{table}_{column}")


def _index(table: str, *columns: str) -> None:
    for column in columns:
        op.create_index(f"ix_{table}_{column}", table, [column])


def _partial(name: str, table: str, columns: list[str], where: str, *, unique: bool) -> None:
    rule = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=rule, postgresql_where=rule)


def _work() -> None:
    op.create_table(
        "scans",
        _id("id"),
        _text("bucket"),
        _text("key"),
        _text("version_id", null=True),
        _text("name"),
        _digest("upload_digest", null=True),
        _digest("canonical_digest", null=True),
        _text("manifest", null=True),
        _json("detail"),
        _digest("cleanset_digest", null=True),
        _text("cleanset_name", null=True),
        _digest("policy_digest", null=True),
        _code("state"),
        _id("verdict_id", null=True),
        _text("error", null=True),
        _text("submitted_by", null=True),
        _id("parent_scan_id", null=True),
        _number("attempts"),
        _number("lease_token"),
        _time("lease_until", null=True),
        _time("created_at"),
        _time("updated_at"),
        _key("scans", "id"),
        _refers("scans", "parent_scan_id", "scans.id"),
    )
    _index(
        "scans", "name", "upload_digest", "canonical_digest", "state", "submitted_by", "created_at"
    )
    _partial(
        "uq_scans_object",
        "scans",
        ["bucket", "key", "version_id"],
        "parent_scan_id IS NULL",
        unique=True,
    )
    op.create_table(
        "nominations",
        _id("id"),
        _text("bucket"),
        _text("key"),
        _text("version_id", null=True),
        _code("source", 32),
        _time("received_at"),
        _code("state"),
        _text("reason"),
        _id("scan_id", null=True),
        _key("nominations", "id"),
        _refers("nominations", "scan_id", "scans.id"),
    )
    _index("nominations", "state")
    op.create_table(
        "artifacts",
        _digest("digest"),
        _col("size", sa.BigInteger()),
        _code("kind"),
        _digest("parent_digest", null=True),
        _json("manifest", null=True),
        _time("created_at"),
        _key("artifacts", "digest"),
        _refers("artifacts", "parent_digest", "artifacts.digest"),
    )
    _index("artifacts", "parent_digest")


def _verdicts() -> None:
    op.create_table(
        "evidence",
        _digest("key"),
        _digest("artifact_digest"),
        _digest("cleanset_digest"),
        _code("method", 64),
        _number("version"),
        _code("outcome"),
        _json("body"),
        _time("created_at"),
        _key("evidence", "key"),
        _refers("evidence", "artifact_digest", "artifacts.digest"),
    )
    _index("evidence", "artifact_digest", "method")
    op.create_table(
        "verdicts",
        sa.Column("seq", sa.Integer(), nullable=False, autoincrement=False),
        _id("id"),
        _digest("artifact_digest"),
        _id("scan_id"),
        _code("verdict"),
        _text("envelope"),
        _digest("previous"),
        _digest("hash"),
        _time("issued_at"),
        _time("expires_at"),
        _digest("policy_digest"),
        _key("verdicts", "seq"),
        sa.UniqueConstraint("id", name="uq_verdicts_id"),
        _refers("verdicts", "artifact_digest", "artifacts.digest"),
        _refers("verdicts", "scan_id", "scans.id"),
    )
    _index("verdicts", "artifact_digest", "scan_id")
    op.create_table(
        "reviews",
        _id("id"),
        _id("verdict_id"),
        _text("reviewer"),
        _code("decision"),
        _text("reason"),
        _id("new_verdict_id", null=True),
        _time("at"),
        _key("reviews", "id"),
        _refers("reviews", "verdict_id", "verdicts.id"),
    )
    _index("reviews", "verdict_id")


def _serving() -> None:
    op.create_table(
        "publications",
        _id("id"),
        _digest("digest"),
        _text("name"),
        _code("version", 32),
        _code("publisher", 64),
        _digest("archive_digest"),
        _json("receipt"),
        _text("envelope"),
        _code("state"),
        _time("at"),
        _time("withdrawn_at", null=True),
        _text("reason"),
        _key("publications", "id"),
        _refers("publications", "digest", "artifacts.digest"),
        sa.UniqueConstraint("name", "version", name="uq_publications_name_version"),
    )
    _index("publications", "digest", "state")
    op.create_table(
        "revocations",
        _id("id"),
        _digest("digest"),
        _text("reason"),
        _text("by"),
        _time("at"),
        _key("revocations", "id"),
    )
    _index("revocations", "digest")
    op.create_table(
        "cleansets",
        _digest("digest"),
        _text("name"),
        _json("facts"),
        _time("added_at"),
        _key("cleansets", "digest"),
    )
    _index("cleansets", "name")
    op.create_table(
        "methods",
        _code("kind"),
        _code("name", 64),
        _number("version"),
        _code("state"),
        _key("methods", "kind", "name"),
    )


def _messages() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=True),
        _code("task", 64),
        _json("payload"),
        _time("created_at"),
        _time("not_before"),
        _time("sent_at", null=True),
        _key("outbox", "id"),
    )
    _partial("ix_outbox_unsent", "outbox", ["not_before"], "sent_at IS NULL", unique=False)
    op.create_table(
        "dead_letters",
        _id("id"),
        _code("task", 64),
        _json("payload"),
        _text("error"),
        _time("at"),
        _key("dead_letters", "id"),
    )
    op.create_table(
        "alarms",
        _id("id"),
        _code("kind", 64),
        _text("subject"),
        _text("detail"),
        _time("at"),
        _time("cleared_at", null=True),
        _key("alarms", "id"),
    )
    _partial("uq_alarms_open", "alarms", ["kind", "subject"], "cleared_at IS NULL", unique=True)


def _append_only() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION guard_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
        )
        for table in APPEND_ONLY:
            op.execute(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION guard_refuse_change()"
            )
            op.execute(
                f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION guard_refuse_change()"
            )
        return
    for table in APPEND_ONLY:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )


def _four_eyes() -> None:
    # The service checks first, with a clearer message; this trigger stops whoever bypasses it.
    uploader = (
        "SELECT 1 FROM verdicts JOIN scans ON scans.id = verdicts.scan_id "
        "WHERE verdicts.id = NEW.verdict_id AND scans.submitted_by = NEW.reviewer"
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION guard_four_eyes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF NEW.decision = 'approve' AND EXISTS ({uploader}) THEN "
            "RAISE EXCEPTION 'reviews: the uploader may not approve' USING ERRCODE = "
            "'integrity_constraint_violation'; "
            "END IF; RETURN NEW; END $$"
        )
        op.execute(
            "CREATE TRIGGER reviews_four_eyes BEFORE INSERT ON reviews "
            "FOR EACH ROW EXECUTE FUNCTION guard_four_eyes()"
        )
        return
    op.execute(
        "CREATE TRIGGER reviews_four_eyes BEFORE INSERT ON reviews "
        f"WHEN NEW.decision = 'approve' AND EXISTS ({uploader}) "
        "BEGIN SELECT RAISE(ABORT, 'reviews: the uploader may not approve'); END"
    )
