"""What a project may use of the service: uploads and bytes of 24 hours, and scans open at once."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from guard.core.errors import ArtifactRejected, InputError
from guard.store import projects

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.store.project_rows import ProjectRow

DAY = timedelta(days=1)
OPEN_SECONDS = 60.0  # a scan takes minutes; whoever asks sooner asks in vain


class QuotaExceeded(InputError):
    """A project used what it may; `retry_after` is in how many seconds to try again."""

    code = "project_quota"

    def __init__(self, sentence: str, retry_after: int) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Full:
    """Which limit is reached, as a sentence, and in how many seconds there may be room again."""

    reason: str
    seconds: float


def full(session: "Session", project: "ProjectRow", now: datetime, size: int = 0) -> Full | None:
    """The limit that one more upload of `size` bytes would break; None where there is room.

    Raises:
        ArtifactRejected: the upload alone is larger than what the project may upload in a day.
    """
    if project.bytes_a_day is not None and size > project.bytes_a_day:
        raise ArtifactRejected(
            f"The object has {size} bytes, and project {project.name} may upload "
            f"{project.bytes_a_day} a day.",
            code="project_upload_too_large",
        )
    used = projects.usage(session, project.name, now - DAY)
    if project.open_scans is not None and used.open >= project.open_scans:
        return Full(f"Project {project.name} has {used.open} scans open, its most.", OPEN_SECONDS)
    over = project.bytes_a_day is not None and used.bytes + max(size, 1) > project.bytes_a_day
    if (project.scans_a_day is not None and used.scans >= project.scans_a_day) or over:
        what = f"{used.bytes} bytes" if over else f"{used.scans} models"
        left = (used.oldest + DAY - now).total_seconds() if used.oldest is not None else 1.0
        return Full(f"Project {project.name} uploaded {what} in 24 hours, its most.", left)
    return None


def check_submission(session: "Session", bucket: str, key: str, now: datetime) -> None:
    """Refuse what somebody asks for beyond their project's limits.

    An event is never refused: what it reported waits (`guard.flow._fair_share`).

    Raises:
        QuotaExceeded: the project of the key used what it may.
    """
    project = projects.of_key(session, bucket, key)
    found = None if project is None else full(session, project, now)
    if found is not None:
        raise QuotaExceeded(
            f"{found.reason} Submit it again later, or ask an operator.",
            max(math.ceil(found.seconds), 1),
        )
