"""A waiver: two people take it upon themselves that one finding does not count, for a time."""

from dataclasses import dataclass
from datetime import datetime

from guard.core.evidence import Target
from guard.core.plain import Digest, Text


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """One finding about one artifact that two people took upon themselves.

    It holds for the `evidence` (keys) that it was given for, whose `target` class the `method`
    accused in this `version`, under the `policy` (a digest), and until `until`. `owner` asked for
    it and `approver` agreed; `waiver_id` is the id of the owner's act.
    """

    waiver_id: Text
    artifact: Digest
    method: Text
    version: int
    target: Target
    evidence: tuple[Digest, ...]
    policy: Digest
    reason: Text
    owner: Text
    approver: Text
    until: datetime

    @property
    def finding(self) -> str:
        """The finding as `guard waive --finding` names it."""
        return self.method if self.target is None else f"{self.method}:{self.target}"

    @property
    def sentence(self) -> str:
        """What a reader of a verdict must know of it."""
        return (
            f"Waived until {self.until:%Y-%m-%d} by {self.owner} and {self.approver}: "
            f"{self.finding} ({self.reason})"
        )
