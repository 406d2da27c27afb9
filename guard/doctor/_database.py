"""Database: reachable, at this release's schema, under a role of its own."""

from pathlib import Path

from guard.core.errors import Unavailable
from guard.doctor._check import (
    OTHERS_WRITE,
    Check,
    Finding,
    Ground,
    failed,
    mode_of,
    ok,
    unknown,
    warning,
)
from guard.store import grants, migrate, principals
from guard.store.session import database_url

_FIRST = "Mend `database` first."


def database(ground: Ground) -> Finding:
    """Whether it answers."""
    kind = database_url(ground.settings.database_url).get_backend_name()
    try:
        migrate.current_of(ground.engine)
    except Unavailable as error:
        return failed(
            f"The {kind} database does not answer: {error.sentence}",
            "Start it, correct GUARD_DATABASE_URL, or make one with `guard db upgrade`.",
        )
    return ok(f"The {kind} database answers.")


def schema(ground: Ground) -> Finding:
    """Whether its schema is this release's."""
    try:
        found = migrate.current_of(ground.engine)
    except Unavailable:
        return unknown("The database does not answer.", _FIRST)
    wanted = migrate.head()
    if found != wanted:
        return failed(
            f"The schema is at {found or 'nothing'}, and this release needs {wanted}.",
            "Back up, then `guard db upgrade`.",
        )
    return ok(f"The schema is at {found}.")


def roles(ground: Ground) -> Finding:
    """Whether this login can do no more than it needs."""
    url = database_url(ground.settings.database_url)
    try:
        engine = ground.engine
        if url.get_backend_name() == "sqlite":
            return _file(Path(str(url.database)))
        excess = grants.excess(engine)
    except Unavailable:
        return unknown("The database does not answer, or has no tables.", _FIRST)
    if excess:
        return warning(
            f"This login may {' and '.join(excess)}: whoever takes this process over may too.",
            "`guard db roles --apply`, and log in as one of the roles (docs/operating.md).",
        )
    return ok("This login cannot delete a verdict or change a table.")


def _file(path: Path) -> Finding:
    open_to = [place for place in (path, path.parent) if mode_of(place) & OTHERS_WRITE]
    if open_to:
        return failed(
            f"Others than the owner can write to {open_to[0]}.", f"chmod go-w {open_to[0]}"
        )
    return ok("SQLite has no roles; only its owner can write the file.")


def who_acts(ground: Ground) -> Finding:
    """Whether acts have principals."""
    try:
        with ground.reading() as session:
            there = principals.exist(session)
    except Unavailable:
        return unknown("The database does not answer, or has no tables.", _FIRST)
    if there or ground.settings.require_principals:
        return ok("Acts need a token.")
    return warning(
        "No principal exists: whoever has a shell here acts, and verdicts say unauthenticated.",
        "`guard token create NAME --role operator --first`.",
    )


CHECKS = (
    Check("database", database),
    Check("schema", schema),
    Check("database_roles", roles),
    Check("principals", who_acts),
)
