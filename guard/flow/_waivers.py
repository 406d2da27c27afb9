"""Which waivers count for an artifact, read from the acts that the ledger sealed.

A waiver is no row of its own: it is the act of who asked for it, the act of who agreed, and
perhaps one that ends it. So every one of them is signed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guard.attest.acts import of_done
from guard.core.plain import from_plain
from guard.core.roles import Act
from guard.core.waivers import Waiver
from guard.flow._seal import settle
from guard.store import acts, uploaders
from guard.store.scope import EVERYTHING, Scope
from guard.store.session import reading

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.flow.context import Guard
    from guard.store.rows import ActRow, ScanRow

#: Who "agreed" to a waiver that waits for a second person.
NOBODY = "nobody yet"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A waiver with the acts that it consists of; `ended` may be there without `agreed`."""

    waiver: Waiver
    asked: "ActRow"
    agreed: "ActRow | None" = None
    ended: "ActRow | None" = None

    @property
    def rows(self) -> list["ActRow"]:
        """All of its acts."""
        return [row for row in (self.asked, self.agreed, self.ended) if row is not None]


def read(session: "Session", asked: Iterable["ActRow"]) -> list[Asked]:
    """The waivers that these acts ask for, with what was done about each.

    One that cannot be read is left out.
    """
    asked = list(asked)
    answers: Mapping[tuple[str, Act], ActRow] = {
        (row.subject, row.act): row
        for row in reversed(
            acts.about(session, [row.id for row in asked], Act.APPROVE_WAIVER, Act.REVOKE_WAIVER)
        )
    }
    found = []
    for row in asked:
        agreed = answers.get((row.id, Act.APPROVE_WAIVER))
        waiver = _waiver(row, NOBODY if agreed is None else agreed.principal)
        if waiver is not None:
            ended = answers.get((row.id, Act.REVOKE_WAIVER))
            found.append(Asked(waiver=waiver, asked=row, agreed=agreed, ended=ended))
    return found


def counting(guard: "Guard", scan: "ScanRow") -> tuple[Waiver, ...]:
    """The waivers about a scan's artifact that two people agreed to and that have not ended.

    Neither may have uploaded it, as far as is known now. Whether the policy and the method are
    still those of the waiver is for `guard.policy.waived` to say.
    """
    digest = scan.canonical_digest
    with reading(guard.engine) as session:
        asked = acts.about(session, [digest], Act.WAIVE) if digest else []
        if not asked:
            return ()
    settle(guard)  # what was just agreed to may not be sealed yet
    with reading(guard.engine) as session:
        known = uploaders.of_scan(session, scan.id)
        found = _in_force(guard, session, asked)
    return tuple(one for one in found if known.isdisjoint({one.owner, one.approver}))


def every(guard: "Guard") -> dict[str, tuple[Waiver, ...]]:
    """What `counting` gives for each artifact by its digest, whoever uploaded it."""
    found = defaultdict[str, list[Waiver]](list)
    with reading(guard.engine) as session:
        for waiver in _in_force(guard, session, acts.of_kind(session, Act.WAIVE)):
            found[waiver.artifact].append(waiver)
    return {digest: tuple(waivers) for digest, waivers in found.items()}


def _in_force(guard: "Guard", session: "Session", asked: list["ActRow"]) -> list[Waiver]:
    found = [
        one
        for one in read(session, asked)
        if one.agreed is not None
        and one.ended is None
        and one.waiver.owner != one.waiver.approver
        and guard.now() < one.waiver.until
    ]
    seals = acts.seals(session, [row.id for one in found for row in one.rows])
    return [
        one.waiver
        for one in found
        if all(seals.get(row.id) == of_done(row).subject for row in one.rows)
    ]


def _waiver(row: "ActRow", approver: str) -> Waiver | None:
    plain = {
        **row.facts,
        "waiver_id": row.id,
        "artifact": row.subject,
        "reason": row.detail,
        "owner": row.principal,
        "approver": approver,
    }
    try:
        return from_plain(Waiver, plain)
    except (KeyError, TypeError, ValueError):
        return None  # somebody wrote the row by hand, and it counts for nothing


def named(session: "Session", wanted: str, scope: Scope = EVERYTHING) -> Asked | None:
    """The waiver whose id is `wanted` or starts with it; None where there is not exactly one."""
    rows = [row for row in acts.of_kind(session, Act.WAIVE, scope) if row.id.startswith(wanted)]
    found = read(session, rows)
    return found[0] if len(found) == 1 else None
