"""Scan again what is served, before its verdict ends and when what the verdict rests on changed.

Evidence is kept under its key, so only what changed is run: a re-scan starts at the decision, which
sends it back to the detectors where a piece is missing. The old verdict stands until the new one is
signed.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from guard.core.errors import CleanSetError, GuardError, InputError
from guard.core.evidence import AnyCleanSet
from guard.core.notes import Rescan, ScanNotes
from guard.core.roles import Act
from guard.core.states import ScanState
from guard.detectors import DETECTORS
from guard.flow import _aging, _reuse, _waivers
from guard.flow._acts import note
from guard.flow._modality import for_scan_in
from guard.flow._seal import settle
from guard.flow.context import Guard
from guard.flow.detect import wanted_cleanset
from guard.flow.principals import Principal, permit
from guard.flow.readers import scope_of
from guard.flow.signed import signed
from guard.store import cleansets, evidence, ledger, outbox, publications, revocations, scans
from guard.store.rows import LedgerRow, PublicationRow, ScanRow
from guard.store.scope import Scope
from guard.store.session import reading, transaction

#: A re-scan that changed nothing, or failed, is not repeated sooner.
RETRY = timedelta(hours=6)
#: How long ago something may have gone dark and still comes back by itself.
LAPSED = timedelta(days=90)
MIN_PREFIX = 8
#: A re-scan in one of these will still read what its decision rests on.
_UNDECIDED = frozenset({ScanState.INSPECTING, ScanState.DETECTING, ScanState.DECIDING})


@dataclass(frozen=True, kw_only=True)
class Due:
    """A first scan whose verdict must be renewed, and why; `giver` gave the verdict in force."""

    root: ScanRow
    giver: ScanRow
    row: LedgerRow
    why: str
    names: int  # under how many names the artifact is served


@dataclass(frozen=True, kw_only=True)
class _Basis:
    """What verdicts rest on today."""

    now: datetime
    until: datetime
    policy: str
    versions: frozenset[tuple[str, int]]
    cleansets: dict[str, str]


def renew(guard: Guard) -> list[str]:
    """What beat calls: act on what is about to expire, then open re-scans as far as may be.

    Returns:
        The ids of the re-scans that were opened.
    """
    _aging.act(guard)
    with reading(guard.engine) as session:
        followers = scans.followers(session, guard.now() - RETRY)
    repeats = [(of, scan) for scan in followers if (of := _repeats(scan))]
    left = max(0, guard.settings.rescan_limit - sum(_open(scan) for _, scan in repeats))
    tried = {of for of, _ in repeats}  # a moment ago, or still at it
    wanted = [item for item in due(guard) if item.root.id not in tried]
    return [begin(guard, item.root, item.giver, item.why) for item in wanted[:left]]


def due(guard: Guard, *, expiring_only: bool = False) -> list[Due]:
    """Everything served that must be scanned again: what ends first, then what is served most."""
    known: dict[str, _Basis] = {}
    found: dict[str, Due] = {}
    with reading(guard.engine) as session:
        active = publications.active(session)
        revoked = revocations.digests(session)
        for row in (*active, *publications.lapsed(session, guard.now() - LAPSED)):
            if row.digest in revoked:
                continue
            root = _aging.root_of(session, row)
            if root is None:
                continue
            names = sum(other.digest == row.digest for other in active)
            own = for_scan_in(guard, session, root)
            kind = own.policy.digest
            if kind not in known:
                try:
                    known[kind] = _basis(own, session)
                except (GuardError, TypeError, ValueError):
                    if not own.project:
                        raise
                    # A method refuses the parameters that a project's policy has for it: what is
                    # served there is not renewed and ends, and everybody else's is.
                    continue
            item = _due(own, session, row, root, known[kind], names)
            if item is not None and (not expiring_only or item.row.expires_at <= known[kind].until):
                found[item.root.id] = item
    return sorted(found.values(), key=lambda item: (item.row.expires_at, -item.names))


def request(guard: Guard, wanted: str, by: Principal | str) -> list[str]:
    """Scan a model again, by the name it is served under, its digest, or one of its scans.

    Args:
        by: a principal with a reviewer's or an operator's token; a name is a login without one.

    Returns:
        The ids of the re-scans; one that is open already is not opened twice.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`.
        InputError: nothing of that kind is known, it was never inspected, or it was withdrawn.
    """
    with reading(guard.engine) as session:
        who = permit(guard, session, by, Act.RESCAN)
        roots = _roots(session, wanted, scope_of(guard, session, who))
        revoked = revocations.digests(session)
    for root in roots:
        if root.canonical_digest in revoked:
            raise InputError(
                f"{wanted} was withdrawn and is not scanned again.", code="rescan_withdrawn"
            )
        if _open(root) or root.canonical_digest is None:
            raise InputError(
                f"Scan {root.id} is {root.state} and has nothing to scan again; `guard status` "
                "shows it.",
                code="rescan_nothing",
            )
    why = "a person asked for it"
    return [begin(guard, root, _giver(guard, root), why, by=by) for root in roots]


def request_expiring(guard: Guard, by: Principal | str) -> list[str]:
    """Scan everything again that is served and whose verdict ends soon; returns as `request`.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`.
    """
    with reading(guard.engine) as session:
        permit(guard, session, by, Act.RESCAN)
    items = due(guard, expiring_only=True)
    return [begin(guard, item.root, item.giver, item.why, by=by) for item in items]


def begin(
    guard: Guard, root: ScanRow, giver: ScanRow, why: str, *, by: Principal | str | None = None
) -> str:
    """Open a re-scan of `root`, or find the one that is open; returns its id.

    Args:
        by: who asked for it, which is recorded; None where the guard itself did.
    """
    with transaction(guard.engine) as session:
        who = None if by is None else permit(guard, session, by, Act.RESCAN)
        scan_id, new = open_in(guard, session, root, giver, why)
        if new and who is not None:
            subject = root.canonical_digest or ""
            note(guard, session, who, Act.RESCAN, subject, why, {"of": root.id, "scan": scan_id})
    if by is not None:
        settle(guard)
    return scan_id


def open_in(
    guard: Guard, session: Session, root: ScanRow, giver: ScanRow, why: str
) -> tuple[str, bool]:
    """What `begin` does, inside the caller's transaction: the re-scan's id, and whether it is new.

    It starts at the decision, which sends it to the detectors where something is missing: that is
    for a process to say that has them.
    """
    for scan in scans.followers(session, guard.now()):
        if _repeats(scan) == root.id and scan.state in _UNDECIDED:
            return scan.id, False
    guard = for_scan_in(guard, session, root)
    cleanset = _cleanset(guard, root)
    notes = ScanNotes(
        purification=root.detail.purification,
        retraining=root.detail.retraining,
        unrepaired=giver.detail.unrepaired,
        smoke=giver.detail.smoke,
        canary=giver.detail.canary,
        rescan=Rescan(of=root.id, why=why, unseen=True),
    )
    scan = _aging.insert(session, root, notes, guard.now())
    fields: dict[str, Any] = {}
    if cleanset is not None:
        fields = {"cleanset_digest": cleanset.digest, "cleanset_name": cleanset.name}
    scans.move(session, scan.id, ScanState.DECIDING, guard.now(), **fields)
    outbox.add(session, "decide", {"scan_id": scan.id}, guard.now())
    return scan.id, True


def _open(scan: ScanRow) -> bool:
    return scan.state not in (ScanState.DONE, ScanState.FAILED)


def _repeats(scan: ScanRow) -> str:
    """The first scan that a re-scan repeats; "" for any other, and where nothing is looked at."""
    notes = scan.detail.rescan
    return "" if notes is None or notes.extension else notes.of


def _cleanset(guard: Guard, root: ScanRow) -> AnyCleanSet | None:
    try:
        return wanted_cleanset(guard, root)
    except CleanSetError:
        return None  # the detect stage says it


def _giver(guard: Guard, root: ScanRow) -> ScanRow:
    with reading(guard.engine) as session:
        if root.verdict_id is None:
            return root
        return scans.get(session, ledger.get(session, root.verdict_id).scan_id)


def _basis(guard: Guard, session: Session) -> _Basis:
    now = guard.now()
    latest = {facts.name: facts.digest for facts in reversed(cleansets.list_all(session))}
    return _Basis(
        now=now,
        until=now + timedelta(seconds=guard.policy.rescan_before_seconds),
        policy=guard.policy.digest,
        versions=frozenset(
            (name, DETECTORS.get(name)(**dict(rule.params)).version)
            for name, rule in guard.policy.detectors.items()
        ),
        cleansets=latest,
    )


def _due(
    guard: Guard,
    session: Session,
    row: PublicationRow,
    root: ScanRow,
    basis: _Basis,
    names: int,
) -> Due | None:
    if root.verdict_id is None:
        return None
    verdict = ledger.get(session, root.verdict_id)
    if not _aging.may_be_served(verdict):
        return None
    early = row.withdrawn_at is not None and row.withdrawn_at < verdict.expires_at
    if early and not _aging.only_extended(verdict):
        return None  # something else than its age ended it
    giver = scans.get(session, verdict.scan_id)
    why = _why(guard, session, giver, verdict, basis)
    return Due(root=root, giver=giver, row=verdict, why=why, names=names) if why else None


def _why(guard: Guard, session: Session, giver: ScanRow, verdict: LedgerRow, basis: _Basis) -> str:
    if verdict.expires_at <= basis.until:
        if guard.policy.lifetime.on_expiry == "review" and _aging.is_approval(verdict):
            return ""  # a person looks again, at its end
        return "its verdict expires"
    if verdict.policy_digest != basis.policy:
        return "the policy changed"
    cleanset = giver.cleanset_digest or ""
    if basis.cleansets.get(giver.cleanset_name or "", cleanset) != cleanset:
        return "the clean set changed"
    if not basis.versions <= evidence.versions(session, verdict.artifact_digest, cleanset):
        return "a detector changed"
    resting = {waiver.waiver_id for waiver in signed(verdict.envelope).facts.waivers}
    if resting and not resting <= {one.waiver_id for one in _waivers.counting(guard, giver)}:
        return "a waiver ended"
    return "" if _reuse.same_canary(giver.detail) else "the canary changed"


def _roots(session: Session, wanted: str, scope: Scope) -> list[ScanRow]:
    active = publications.active(session)
    served = [
        row
        for row in active
        if wanted in (row.name, row.digest)
        or (len(wanted) >= MIN_PREFIX and row.digest.startswith(wanted))
    ]
    found = [_aging.root_of(session, row) for row in served]
    roots = [root for root in found if root is not None and scope.sees(root.bucket, root.key)]
    if not roots:
        named = scans.latest_of_name(session, wanted, scope)
        by_digest = scans.for_digest(session, wanted, scope)
        scan = named or (by_digest[0] if by_digest else scans.get(session, wanted, scope))
        roots = [_first(session, scan)]
    return list({root.id: root for root in roots}.values())


def _first(session: Session, scan: ScanRow) -> ScanRow:
    return scan if scan.detail.rescan is None else scans.get(session, scan.detail.rescan.of)
