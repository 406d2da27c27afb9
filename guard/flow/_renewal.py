"""How a re-scan ends: its verdict takes the old one's place, or the old one stands.

A re-scan that could not look says nothing about the model: the old verdict stands until it
expires, no longer, and an alarm says that the next one failed. One that has expired is not replaced
either: it shows what there was, and that a re-scan which can look brings back.
"""

from dataclasses import replace

from guard.core.states import SERVABLE_VERDICTS, UNDECIDED, ScanState, Verdict
from guard.core.verdict import VerdictFacts
from guard.flow import _newest, _reuse
from guard.flow._lease import Held
from guard.flow._verdict import Terms, write
from guard.flow._warning import lets_through
from guard.flow.context import Guard
from guard.flow.signed import signed
from guard.policy import Case
from guard.store import alarms, outbox, publications, scans
from guard.store.rows import LedgerRow, ScanRow
from guard.store.session import reading, transaction

FAILED = "rescan_failed"


def unseen(scan: ScanRow) -> bool:
    """Whether nobody has checked yet that a re-scan has all that its decision needs."""
    return scan.detail.rescan is not None and scan.detail.rescan.unseen


def examined(guard: Guard, scan: ScanRow, case: Case) -> bool:
    """Whether nothing has to run before the artifact of a re-scan can be decided anew."""
    notes = scan.detail
    if notes.smoke is None or not _reuse.same_canary(notes):
        return False
    whole = _reuse.complete(guard.policy, case)
    return whole and not _reuse.unsifted(guard, case.artifact, case)


def look_first(guard: Guard, held: Held, scan: ScanRow) -> None:
    """Send a re-scan to the detectors; it comes back once, with whatever they could do."""
    if scan.detail.rescan is None:
        return
    notes = replace(scan.detail, rescan=replace(scan.detail.rescan, unseen=False))
    with transaction(guard.engine) as session:
        held.check(session)
        now = guard.now()
        scans.move(session, scan.id, ScanState.DETECTING, now, lease=held.lease, detail=notes)
        outbox.add(session, "detect", {"scan_id": scan.id}, now)


def conclude(guard: Guard, held: Held, scan: ScanRow, facts: VerdictFacts, terms: Terms) -> None:
    """Sign the verdict of a re-scan, unless the one in force has to stand."""
    before, subject = _before(guard, scan), scan.canonical_digest or ""
    old = before if before is not None and guard.now() < before.expires_at else None
    decided = before is not None and before.verdict not in UNDECIDED
    if facts.verdict in UNDECIDED and (old is not None or decided):
        _stand(guard, held, scan, facts.reasons)
        return
    if facts.verdict is Verdict.HELD and old is not None:
        facts, terms = _approved_before(guard, scan, old, facts, terms)
    if facts.verdict in SERVABLE_VERDICTS or lets_through(guard, scan, facts.verdict):
        terms = replace(terms, then="publish" if _is_served(guard, scan) else "")
    with transaction(guard.engine) as session:
        held.check(session)
        write(guard, session, scan, subject, facts, terms, lease=held.lease)
        alarms.clear(session, FAILED, _subject(scan), guard.now())


def _before(guard: Guard, scan: ScanRow) -> LedgerRow | None:
    with reading(guard.engine) as session:
        return _newest.verdict(session, scan.canonical_digest or "", guard.trusted, scan)


def _stand(guard: Guard, held: Held, scan: ScanRow, reasons: tuple[str, ...]) -> None:
    sentence = " ".join(reasons)
    with transaction(guard.engine) as session:
        held.check(session)
        scans.move(
            session, scan.id, ScanState.FAILED, guard.now(), lease=held.lease, error=sentence
        )
        detail = f"The re-scan of {scan.name} decided nothing; its verdict stands. {sentence}"
        alarms.raise_(session, FAILED, _subject(scan), detail, guard.now())


def _subject(scan: ScanRow) -> str:
    return scan.detail.rescan.of if scan.detail.rescan is not None else scan.id


def _approved_before(
    guard: Guard, scan: ScanRow, old: LedgerRow, facts: VerdictFacts, terms: Terms
) -> tuple[VerdictFacts, Terms]:
    """A reviewer's approval, renewed where policy, evidence and waivers are as the reviewer saw.

    One by somebody of whom it has become known that they may have uploaded the model is not.
    """
    view = signed(old.envelope)
    same = set(view.facts.evidence) == set(facts.evidence) and view.facts.waivers == facts.waivers
    approved = view.basis["kind"] == "review" and view.verdict in SERVABLE_VERDICTS
    if not (same and approved and guard.policy.decides_as(old.policy_digest)):
        return facts, terms
    if _reuse.by_an_uploader(guard, scan, view):
        return facts, terms
    basis = {**view.basis, "renews": old.id}
    return facts.reviewed(view.verdict, view.facts.reasons[0]), replace(terms, basis=basis)


def _is_served(guard: Guard, scan: ScanRow) -> bool:
    """Whether the renewed artifact is served in its name, or nothing is and it may come back."""
    with reading(guard.engine) as session:
        active = publications.active(session, scan.name)
    if active:
        return scan.canonical_digest in {row.digest for row in active}
    return guard.settings.auto_publish
