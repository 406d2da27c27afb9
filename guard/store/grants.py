"""What each part of the service may do in a PostgreSQL database, as roles and their rights.

The process that migrates owns the tables. Nobody else may change them or empty a table;
no process of the service needs to. Only rows that are kept for a time (`guard.store.kept`) are
deleted; evidence, verdicts and acts never are.
"""

import re
from collections.abc import Mapping
from enum import StrEnum

from sqlalchemy import Engine, text

from guard.core.errors import InputError
from guard.store._table import Base
from guard.store.kept import PASSING
from guard.store.session import reading, transaction

_PREFIX = re.compile(r"[a-z][a-z0-9_]{0,39}")


class DatabaseRole(StrEnum):
    """Who connects; a host may run several of these, each with a login of its own.

    `worker` reads untrusted files, runs models and trains (queues inspect, scan and train),
    `signer` has the signing key (control, publish and watch, and the command line), `api` answers
    requests and passes messages on (API, relay, poller), `notifier` sends notifications and tags
    uploads (queue notify), `reader` changes nothing.
    """

    WORKER = "worker"
    SIGNER = "signer"
    API = "api"
    NOTIFIER = "notifier"
    READER = "reader"


#: Rows in these are never changed (triggers refuse it too), not even by the signer.
APPEND_ONLY = frozenset(
    {
        "acts",
        "checkpoint_notes",
        "evidence",
        "ledger_acts",
        "reviews",
        "revocations",
        "uploaders",
        "verdicts",
    }
)
#: Hashes of secrets, which only those read who compare them with a caller's.
_SECRET = frozenset({"browser_sessions", "tokens"})
_ADD: Mapping[DatabaseRole, frozenset[str]] = {
    DatabaseRole.WORKER: frozenset(
        {
            "alarms",
            "artifacts",
            "canaries",
            "claims",
            "dead_letters",
            "evidence",
            "hook_events",
            "exhibits",
            "nominations",
            "outbox",
            "project_uploads",
            "scans",
            "tallies",
            "uploaders",
        }
    ),
    DatabaseRole.API: frozenset(
        {
            "acts",
            "browser_sessions",
            "deliveries",
            "hook_events",
            "hooks",
            "identities",  # with the principals and tokens of who signs on (decision 0060)
            "logout_statements",
            "nominations",
            "orders",
            "outbox",
            "principals",
            "project_members",
            "projects",
            "tokens",
            "training_jobs",
        }
    ),
    DatabaseRole.NOTIFIER: frozenset(
        {"alarms", "dead_letters", "deliveries", "delivery_attempts", "hook_events", "outbox"}
    ),
    DatabaseRole.READER: frozenset(),
}
_CHANGE: Mapping[DatabaseRole, frozenset[str]] = {
    DatabaseRole.WORKER: frozenset(
        {"alarms", "artifacts", "claims", "nominations", "scans", "tallies", "training_jobs"}
    ),
    DatabaseRole.API: frozenset(
        {
            "browser_sessions",
            "deliveries",
            "hooks",
            "identities",
            "outbox",
            "project_members",
            "projects",
            "tokens",
            "training_jobs",
        }
    ),
    DatabaseRole.NOTIFIER: frozenset({"alarms", "deliveries", "hook_events", "hooks"}),
    DatabaseRole.READER: frozenset(),
}
#: Notifications are deleted by who sends them, and what else is kept for a time by the signer.
_NOTES = frozenset({"deliveries", "delivery_attempts", "hook_events"})
_MAY_DELETE: Mapping[DatabaseRole, frozenset[str]] = {
    DatabaseRole.NOTIFIER: _NOTES,
    DatabaseRole.SIGNER: frozenset(PASSING) - _NOTES,
}
_READS_SECRETS = frozenset({DatabaseRole.SIGNER, DatabaseRole.API})


def may_add(role: DatabaseRole) -> frozenset[str]:
    """The tables that a role may add rows to."""
    return frozenset(Base.metadata.tables) if role is DatabaseRole.SIGNER else _ADD[role]


def may_change(role: DatabaseRole) -> frozenset[str]:
    """The tables whose rows a role may change."""
    if role is DatabaseRole.SIGNER:
        return frozenset(Base.metadata.tables) - APPEND_ONLY
    return _CHANGE[role]


def may_delete(role: DatabaseRole) -> frozenset[str]:
    """The tables whose rows a role may delete."""
    return _MAY_DELETE.get(role, frozenset())


def may_read(role: DatabaseRole) -> frozenset[str]:
    """The tables that a role may read; all of them may read the schema's revision."""
    hidden = frozenset() if role in _READS_SECRETS else _SECRET
    return frozenset(Base.metadata.tables) - hidden


def statements(prefix: str = "guard_") -> list[str]:
    """The SQL that makes the roles, where they are missing, and gives them their rights anew.

    Args:
        prefix: the roles are called `<prefix>worker` and so on. A role that is made here has no
            login: give it one (`ALTER ROLE ... LOGIN PASSWORD ...`), or make a login a member.

    Raises:
        InputError: the prefix is no plain lower-case name.
    """
    if not _PREFIX.fullmatch(prefix):
        raise InputError(
            f"{prefix!r} is no beginning of a role's name; use lower-case letters, digits and _.",
            code="bad_role_name",
        )
    made = ["REVOKE CREATE ON SCHEMA public FROM PUBLIC"]
    for role in DatabaseRole:
        made += _of(role, prefix + role.value)
    return made


def grant(engine: Engine, prefix: str = "guard_") -> list[str]:
    """Make the roles and give them their rights, all or nothing; returns their names.

    Call it as the owner of the tables, after each upgrade of the schema.

    Raises:
        InputError: the prefix is wrong, or the database is SQLite, which has no roles.
        Unavailable: the database did not answer, or refused: the caller may not make roles.
    """
    if engine.dialect.name != "postgresql":
        raise InputError(
            "Only PostgreSQL has roles; an SQLite file belongs to the user who runs the guard.",
            code="no_database_roles",
        )
    with transaction(engine) as session:
        for statement in statements(prefix):
            session.execute(text(statement))
    return [prefix + role.value for role in DatabaseRole]


def excess(engine: Engine) -> list[str]:
    """What this login may do in PostgreSQL that no process of the service needs.

    Raises:
        Unavailable: the database did not answer, or has no tables.
    """
    asked = text(
        "SELECT r.rolsuper, has_table_privilege('verdicts', 'DELETE'), "
        "pg_has_role(c.relowner, 'USAGE') FROM pg_roles r, pg_class c "
        "WHERE r.rolname = current_user AND c.oid = 'verdicts'::regclass"
    )
    with reading(engine) as session:
        superuser, deletes, owns = session.execute(asked).one()
    can = {"do everything": superuser, "delete verdicts": deletes, "change tables": owns}
    return [what for what, may in can.items() if may]


def _of(role: DatabaseRole, name: str) -> list[str]:
    found = [
        (
            f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') "
            f"THEN CREATE ROLE {name} NOLOGIN; END IF; END $$"
        ),
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {name}",
        f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {name}",
        f"GRANT USAGE ON SCHEMA public TO {name}",
        f"GRANT SELECT ON {_list(may_read(role) | {'alembic_version'})} TO {name}",
    ]
    if may_add(role):
        found.append(f"GRANT INSERT ON {_list(may_add(role))} TO {name}")
        found.append(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {name}")
    if may_change(role):
        found.append(f"GRANT UPDATE ON {_list(may_change(role))} TO {name}")
    if may_delete(role):
        found.append(f"GRANT DELETE ON {_list(may_delete(role))} TO {name}")
    return found


def _list(tables: frozenset[str]) -> str:
    return ", ".join(sorted(tables))
