"""Let nobody fill the queues: each uploader and project has only so many scans open.

The rest waits its turn. Projects share the scans that may be open at once by their priority; what
belongs to none counts as one project of normal priority.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from guard.core.projects import WEIGHTS, Priority
from guard.flow import _quotas
from guard.store import intake, projects

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.store.project_rows import ProjectRow
    from guard.store.rows import NominationRow

SECONDS = 30.0
LONGEST = 600.0
WAITING = "Its uploader has as many scans open as GUARD_UPLOADER_SCANS allows; it waits its turn."
TURN = "Other projects have scans open too; it waits until this one's share has room."


class Shares(Protocol):
    """The settings that matter here."""

    @property
    def uploader_scans(self) -> int: ...
    @property
    def shared_scans(self) -> int: ...


def why_wait(
    session: "Session",
    row: "NominationRow",
    owners: Collection[str],
    size: int,
    limits: Shares,
    now: datetime,
) -> tuple[float, str] | None:
    """In how many seconds to look at an upload of `size` bytes again, and why; None for now.

    Raises:
        ArtifactRejected: its project never has room for it.
    """
    project = projects.of_key(session, row.bucket, row.key)
    quota = None if project is None else _quotas.full(session, project, now, size)
    if must_wait(session, owners, limits.uploader_scans):
        return turn(now - row.received_at)
    if quota is not None:
        return turn(now - row.received_at, quota.reason)
    if over_share(session, project, limits.shared_scans):
        return turn(now - row.received_at, TURN)
    return None


def must_wait(session: "Session", owners: Collection[str], limit: int) -> bool:
    """Whether one of the owners of a key has as many scans open as are allowed.

    Where no prefix of the key has an owner, nobody knows whose it is, and nothing waits.
    """
    return any(intake.open_scans_of(session, owner, limit) >= limit for owner in sorted(owners))


def over_share(session: "Session", project: "ProjectRow | None", limit: int) -> bool:
    """Whether a project has its share of the open scans already.

    Those that have scans open share `limit` by weight, each at least one; a project alone has it
    whole. Where there is no project, nothing is shared.
    """
    known = {row.name: row.priority for row in projects.list_all(session)}
    if not known:
        return False
    own = None if project is None else project.name
    counts = projects.open_by_project(session)
    weights = {
        name: WEIGHTS[Priority.NORMAL if name is None else known[name]] for name in {own, *counts}
    }
    share = max(limit * weights[own] // sum(weights.values()), 1)
    return counts.get(own, 0) >= share


def turn(age: timedelta, why: str = WAITING) -> tuple[float, str]:
    """In how many seconds to look again, longer for what has waited long; and why it waits."""
    return min(max(SECONDS, age.total_seconds() / 4), LONGEST), why
