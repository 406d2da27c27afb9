"""Projects: who uploads and reviews under a prefix, and how much of the service they may use."""

from collections.abc import Mapping
from enum import StrEnum

from guard.core.roles import Role


class Priority(StrEnum):
    """How large a project's share is of the scans that are open at once, beside other projects."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


WEIGHTS: Mapping[Priority, int] = {Priority.LOW: 1, Priority.NORMAL: 2, Priority.HIGH: 4}


class MemberKind(StrEnum):
    """What a member of a project is: one principal, or a group of the identity provider."""

    PRINCIPAL = "principal"
    GROUP = "group"


#: What a member may be beside its role everywhere: viewers read what lies under the prefix, as all
#: members do; uploaders own it; where there are reviewers, nobody else reviews it.
MEMBER_ROLES = frozenset({Role.VIEWER, Role.UPLOADER, Role.REVIEWER})
