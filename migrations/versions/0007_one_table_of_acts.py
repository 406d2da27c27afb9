"""One table of what principals did, each row with an id under which the ledger seals it.

The rows of `acts` and `name_acts` are taken over in the order of time, and the process with the
signing key seals them when it next looks. A trigger keeps uploaders, and one person alone, from
waiving a finding. Going back leaves out kinds of acts that the older release does not know. Locks:
`acts` and `name_acts` while they are copied, which takes a moment for thousands of rows.
"""
# ruff: noqa: S608 - the SQL is put together from constants

import uuid
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_KNOWN = (
    "submit",
    "approve",
    "reject",
    "publish",
    "withdraw",
    "token_create",
    "token_revoke",
    "owner_remove",
)
_BY_NAME = ("rollback", "transfer")
_WAIVED = (
    "CASE NEW.act WHEN 'waive' THEN NEW.subject ELSE "
    "(SELECT w.subject FROM acts w WHERE w.id = NEW.subject AND w.act = 'waive') END"
)
_DIGESTS = "(s.upload_digest, s.canonical_digest, p.upload_digest, p.canonical_digest)"
# As in revision 0006: s is a scan of the artifact, p its parent, r each scan of the same bytes.
_UPLOADED = (
    "EXISTS (SELECT 1 FROM scans s LEFT JOIN scans p ON p.id = s.parent_scan_id "
    f"JOIN scans r ON r.id = s.id OR r.id = p.id OR r.upload_digest IN {_DIGESTS} "
    f"OR r.canonical_digest IN {_DIGESTS} "
    f"WHERE s.canonical_digest = {_WAIVED} AND (r.submitted_by = NEW.principal "
    "OR EXISTS (SELECT 1 FROM uploaders u "
    "WHERE u.scan_id = r.id AND u.principal = NEW.principal) "
    "OR EXISTS (SELECT 1 FROM prefix_owners o WHERE o.principal = NEW.principal "
    "AND o.removed_at IS NULL AND o.bucket = r.bucket "
    "AND substr(r.key, 1, length(o.prefix)) = o.prefix)))"
)
_ALONE = (
    "NEW.act = 'waiver_approve' AND NOT EXISTS (SELECT 1 FROM acts w "
    "WHERE w.id = NEW.subject AND w.act = 'waive' AND w.principal <> NEW.principal)"
)
_REFUSED = f"(NEW.act IN ('waive', 'waiver_approve') AND {_UPLOADED}) OR ({_ALONE})"
_SENTENCE = "acts: a waiver needs two people, neither of them an uploader"


def upgrade() -> None:
    rows = _rows(_acts("seq"), "seq") + [
        {
            "act": row["act"],
            "principal": row["by"],
            "role": "",
            "authenticated": False,
            "token_id": "",
            "subject": row["name"],
            "detail": row["reason"],
            "facts": row["detail"],
            "at": row["at"],
        }
        for row in _rows(_name_acts(), "id")
    ]
    op.drop_table("name_acts")
    op.drop_table("acts")
    op.create_table(
        "acts",
        *_columns(new=True),
        sa.PrimaryKeyConstraint("seq", name="pk_acts"),
        sa.UniqueConstraint("id", name="uq_acts_id"),
    )
    for column in ("act", "principal", "subject"):
        op.create_index(f"ix_acts_{column}", "acts", [column])
    for row in sorted(rows, key=lambda row: row["at"]):
        values = {"facts": {}, **row, "id": uuid.uuid4().hex}
        values.pop("seq", None)
        op.execute(_acts("id", "facts").insert().values(**values))
    _append_only("acts")
    _four_eyes()


def downgrade() -> None:
    rows = _rows(_acts("id", "facts"), "at")
    op.drop_table("acts")
    if _postgresql():
        op.execute("DROP FUNCTION guard_waiver_eyes()")
    op.create_table("acts", *_columns(new=False), sa.PrimaryKeyConstraint("seq", name="pk_acts"))
    op.create_index("ix_acts_principal", "acts", ["principal"])
    op.create_table(
        "name_acts",
        *(sa.Column(column.name, column.type, nullable=False) for column in _name_acts().columns),
        sa.PrimaryKeyConstraint("id", name="pk_name_acts"),
    )
    op.create_index("ix_name_acts_name", "name_acts", ["name"])
    for row in rows:
        values = {key: row[key] for key in row if key not in ("id", "facts")}
        if row["act"] in _KNOWN:
            op.execute(_acts().insert().values(**values))
        elif row["act"] in _BY_NAME:
            older = {"id": row["id"], "name": row["subject"], "by": row["principal"]}
            older |= {"act": row["act"], "reason": row["detail"], "at": row["at"]}
            op.execute(_name_acts().insert().values(**older, detail=row["facts"]))
    _append_only("acts")
    _append_only("name_acts")


def _postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _rows(table: Any, order: str) -> list[dict[str, Any]]:
    found = op.get_bind().execute(sa.select(table).order_by(table.c[order]))
    return [dict(row._mapping) for row in found]


def _time() -> sa.DateTime:
    return sa.DateTime(timezone=True)


def _acts(*more: str) -> Any:
    kinds = {"seq": sa.Integer(), "id": sa.String(32), "facts": sa.JSON()}
    return sa.table(
        "acts",
        *(sa.column(name, kinds[name]) for name in more),
        sa.column("act", sa.String(16)),
        sa.column("principal", sa.Text()),
        sa.column("role", sa.String(16)),
        sa.column("authenticated", sa.Boolean()),
        sa.column("token_id", sa.String(32)),
        sa.column("subject", sa.Text()),
        sa.column("detail", sa.Text()),
        sa.column("at", _time()),
    )


def _name_acts() -> Any:
    return sa.table(
        "name_acts",
        sa.column("id", sa.String(32)),
        sa.column("name", sa.Text()),
        sa.column("act", sa.String(16)),
        sa.column("by", sa.Text()),
        sa.column("reason", sa.Text()),
        sa.column("detail", sa.JSON()),
        sa.column("at", _time()),
    )


def _columns(*, new: bool) -> list[sa.Column]:
    plain = _acts(*(("id", "facts") if new else ())).columns
    return [
        sa.Column("seq", sa.Integer(), nullable=False, autoincrement=True),
        *(sa.Column(column.name, column.type, nullable=False) for column in plain),
    ]


def _append_only(table: str) -> None:
    if _postgresql():
        op.execute(  # the function is that of revision 0001
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION guard_refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION guard_refuse_change()"
        )
        return
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )


def _four_eyes() -> None:
    if _postgresql():
        op.execute(
            "CREATE FUNCTION guard_waiver_eyes() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF {_REFUSED} THEN RAISE EXCEPTION '{_SENTENCE}' USING ERRCODE = "
            "'integrity_constraint_violation'; END IF; RETURN NEW; END $$"
        )
        op.execute(
            "CREATE TRIGGER acts_waiver_eyes BEFORE INSERT ON acts "
            "FOR EACH ROW EXECUTE FUNCTION guard_waiver_eyes()"
        )
        return
    op.execute(
        f"CREATE TRIGGER acts_waiver_eyes BEFORE INSERT ON acts WHEN {_REFUSED} "
        f"BEGIN SELECT RAISE(ABORT, '{_SENTENCE}'); END"
    )
