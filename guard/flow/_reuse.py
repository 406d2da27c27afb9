"""Answer an upload whose bytes have a verdict in force with that verdict, without looking again.

Only where everything that the verdict rests on is as it was: the artifact's digest, the clean set,
the policy, the methods' versions, the canary, and the stored evidence. The new verdict names the
old one and ends with it: uploading again never makes a verdict last longer.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from guard.attest import dsse
from guard.attest.chain import differences
from guard.attest.views import VerdictView, read_verdict
from guard.core.errors import CleanSetError, IntegrityMismatch
from guard.core.manifests import manifest_from
from guard.core.notes import ScanNotes
from guard.core.states import SERVABLE_VERDICTS, ScanState, Verdict
from guard.flow import _newest
from guard.flow._lease import Held
from guard.flow._verdict import Terms, write
from guard.flow._warning import lets_through
from guard.flow.context import Guard
from guard.flow.detect import wanted_cleanset
from guard.policy import Case, Policy, settled
from guard.policy.current import current
from guard.policy.sifted import current_sifts, looked, stored_sifts
from guard.store import artifacts, ledger, outbox, projects, scans, uploaders
from guard.store.rows import LedgerRow, ScanRow
from guard.store.session import reading, transaction
from guard.vetting import canary_trial

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: What is known for good; `inconclusive` and `unvettable` are always tried anew.
_REUSABLE = frozenset({Verdict.CLEARED, Verdict.REJECTED, Verdict.HELD})


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A verdict in force with the scan that gave it; `root` is the verdict that it rests on."""

    row: LedgerRow
    view: VerdictView
    giver: ScanRow
    root: str


def candidate(guard: Guard, session: "Session", scan: ScanRow, digest: str) -> str | None:
    """The id of a verdict that an upload with this digest may rest on; the decision checks it."""
    row = None
    if scan.parent_scan_id is None:
        row = _newest.verdict(session, digest, guard.trusted, scan)
    if row is None or row.verdict not in _REUSABLE or not _in_force(guard, row):
        return None
    if _project_of(session, scan) != _project_of(session, scans.get(session, row.scan_id)):
        return None  # who reviews one project vouches for no other, and it learns nothing of that
    return row.id


def _project_of(session: "Session", scan: ScanRow) -> str | None:
    found = projects.of_key(session, scan.bucket, scan.key)
    return None if found is None else found.name


def complete(policy: Policy, case: Case) -> bool:
    """Whether no detector of `policy` has to run for a decision about `case`."""
    unmeasured = case.accuracy is None and case.quality is None
    if unmeasured or (stored_sifts(case) and not current_sifts(policy, case)):
        return False
    return all(current(policy, name, case) for name in policy.detectors) or settled(policy, case)


def unsifted(guard: Guard, digest: str, case: Case) -> bool:
    """Whether the artifact names a training set that nobody could sift yet; it is tried anew."""
    if case.purification is not None or looked(guard.policy, case):
        return False
    with reading(guard.engine) as session:
        row = artifacts.find(session, digest)
    if row is None or row.manifest is None:
        return False
    return manifest_from(dict(row.manifest)).training_set is not None


def same_canary(notes: ScanNotes) -> bool:
    """Whether the canary is the one that the detectors had passed; older scans do not say."""
    return notes.canary is None or notes.canary == canary_trial.kit_digest()


def by_an_uploader(guard: Guard, scan: ScanRow, view: VerdictView) -> bool:
    """Whether a reviewer gave the verdict who may have uploaded the artifact.

    As far as is known now: an upload of the same bytes may have become known after the review.
    """
    if view.basis["kind"] != "review":
        return False
    with reading(guard.engine) as session:
        return str(view.basis["reviewer"]) in uploaders.of_scan(session, scan.id)


def standing(
    guard: Guard, scan: ScanRow, case_of: Callable[[Guard, ScanRow], Case]
) -> Standing | None:
    """The verdict that `scan` may rest on; None where anything is not as it was."""
    with reading(guard.engine) as session:
        row = ledger.get(session, scan.detail.reuses or "")
        newest = _newest.verdict(session, row.artifact_digest, guard.trusted, scan)
        giver = scans.get(session, row.scan_id)
    if newest is None or newest.id != row.id or not _in_force(guard, row):
        return None
    try:
        view = _read(guard, row)
        cleanset = wanted_cleanset(guard, scan)
        root, first = _root(guard, row, view)
    except (CleanSetError, IntegrityMismatch):
        return None
    if row.artifact_digest != scan.canonical_digest or cleanset.digest != giver.cleanset_digest:
        return None
    if view.facts.parent is not None or view.facts.waivers or first.basis["kind"] == "extension":
        return None  # what was repaired, waived or only extended is decided by itself
    if by_an_uploader(guard, scan, first):
        return None  # nobody's own approval clears what they upload
    if not _concludes(scan, giver, row.verdict) or not same_canary(giver.detail):
        return None
    case = case_of(guard, replace(scan, cleanset_digest=giver.cleanset_digest))
    if not complete(guard.policy, case) or unsifted(guard, case.artifact, case):
        return None
    return Standing(row=row, view=view, giver=giver, root=root)


def conclude(guard: Guard, held: Held, scan: ScanRow, found: Standing | None) -> None:
    """Sign the verdict again for `scan`; where none holds, let the detectors look."""
    through = found is not None and lets_through(
        guard,
        replace(scan, detail=replace(scan.detail, smoke=found.giver.detail.smoke)),
        found.row.verdict,
    )
    with transaction(guard.engine) as session:
        held.check(session)
        now = guard.now()
        if found is None:
            notes = replace(scan.detail, reuses=None)
            scans.move(session, scan.id, ScanState.DETECTING, now, lease=held.lease, detail=notes)
            outbox.add(session, "detect", {"scan_id": scan.id}, now)
            return
        giver = found.giver
        notes = replace(
            scan.detail,
            smoke=giver.detail.smoke,
            canary=giver.detail.canary,
            unrepaired=giver.detail.unrepaired,
        )
        scans.move(
            session,
            scan.id,
            ScanState.DECIDING,
            now,
            lease=held.lease,
            cleanset_digest=giver.cleanset_digest,
            cleanset_name=giver.cleanset_name,
            detail=notes,
        )
        served = found.row.verdict in SERVABLE_VERDICTS and guard.settings.auto_publish
        terms = Terms(
            then="publish" if served or through else "",
            basis={"kind": "reuse", "verdict": found.root},
            until=found.row.expires_at,
        )
        subject = found.row.artifact_digest
        write(guard, session, scan, subject, found.view.facts, terms, lease=held.lease)


def _in_force(guard: Guard, row: LedgerRow) -> bool:
    return guard.now() < row.expires_at and row.policy_digest == guard.policy.digest


def _read(guard: Guard, row: LedgerRow) -> VerdictView:
    view = read_verdict(dsse.verify(row.envelope, guard.trusted))
    if differences(row, view):
        raise IntegrityMismatch(
            "The ledger's row differs from the signed statement.", code="ledger_mismatch"
        )
    return view


def _root(guard: Guard, row: LedgerRow, view: VerdictView) -> tuple[str, VerdictView]:
    """The verdict that a person or the policy gave, however often it was reused."""
    if view.basis["kind"] != "reuse":
        return row.id, view
    with reading(guard.engine) as session:
        first = ledger.get(session, str(view.basis["verdict"]))
    return first.id, _read(guard, first)


def _concludes(scan: ScanRow, giver: ScanRow, verdict: Verdict) -> bool:
    """Whether nothing is left to do for `scan` that only its own stages can do."""
    if verdict in SERVABLE_VERDICTS:
        return giver.detail.smoke is not None
    # A repaired copy is served in its parent's name: another name needs its own.
    unrepaired = verdict is Verdict.HELD and not giver.detail.blind
    return unrepaired or (giver.name == scan.name and giver.state is ScanState.DONE)
