"""The first screen of a model: what is to be decided, by whom, and what could still be wrong."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from guard.core.evidence import Outcome
from guard.core.roles import Act
from guard.core.states import SERVABLE_VERDICTS, ScanState, Verdict
from guard.flow.principals import Forbidden, Principal
from guard.flow.projects import check_reviewer
from guard.store import uploaders
from guard.store.session import reading

if TYPE_CHECKING:
    from guard.flow.context import Guard
    from guard.reports.report import Report
    from guard.store.rows import ScanRow


@dataclass(frozen=True, kw_only=True)
class Standing:
    """`sentence` answers "may I approve this?"; `doubts` "what could still be wrong?".

    `approve` and `reject` are whether the forms are shown. They are a help only: the use case
    refuses what may not be done, whatever a page shows.
    """

    sentence: str
    doubts: tuple[str, ...]
    approve: bool
    reject: bool


def standing_of(guard: "Guard", who: Principal, scan: "ScanRow", report: "Report") -> Standing:
    """How a model stands for the person who looks."""
    open_ = report.verdict is Verdict.HELD and not _repaired(scan)
    with reading(guard.engine) as session:
        known = uploaders.of_scan(session, scan.id)
    barred = _barred(guard, who, scan) if open_ else ""
    reviewer, own = not barred, who.name in known
    return Standing(
        sentence=barred or _sentence(report, scan, own=own, open_=open_),
        doubts=tuple(_doubts(report, known)),
        approve=open_ and reviewer and not own and not report.expired,
        reject=open_ and reviewer,
    )


def _barred(guard: "Guard", who: Principal, scan: "ScanRow") -> str:
    """Why somebody does not review this model, whoever uploaded it; empty where they may."""
    if not who.may(Act.APPROVE):
        return "A reviewer decides about this model; your session has no such role."
    try:
        with reading(guard.engine) as session:
            check_reviewer(session, who.acting(Act.APPROVE), scan)
    except Forbidden as error:
        return error.sentence
    return ""


def _repaired(scan: "ScanRow") -> bool:
    passed = any(one.verdict in SERVABLE_VERDICTS for one in scan.detail.candidates)
    return scan.state is ScanState.PURIFYING or passed


def _sentence(report: "Report", scan: "ScanRow", *, own: bool, open_: bool) -> str:
    if scan.state is ScanState.PURIFYING:
        return "Nothing yet: a copy is being repaired. It comes to the queue if none passes."
    if report.verdict is Verdict.HELD and not open_:
        return "Nothing is to be decided: a repaired copy passed and takes its place."
    if not open_:
        return _CLOSED[report.verdict] + (" It has expired." if report.expired else "")
    if own:
        return (
            "You may reject it, but not approve it: you may have uploaded this model, its parent "
            "or the same bytes. Another reviewer must look."
        )
    if report.expired:
        return "Not as it stands: the held verdict has expired. Scan the model again, then decide."
    return "Yes, you may approve or reject it. Your decision is signed with your name and reason."


_CLOSED = {
    Verdict.CLEARED: "Nothing is to be decided: it is cleared.",
    Verdict.PURIFIED: "Nothing is to be decided: it is a repaired copy that passed.",
    Verdict.REJECTED: "No: it is rejected. A repaired copy, or another upload, may pass.",
    Verdict.UNVETTABLE: "No: the guard cannot examine this file. Upload it in another form.",
    Verdict.INCONCLUSIVE: "No: nothing could be decided. Mend what the reasons name, then scan it "
    "again.",
    Verdict.HELD: "",
}


def _doubts(report: "Report", known: frozenset[str]) -> "list[str]":
    """What nothing on the page vouches for."""
    found = []
    if report.not_covered:
        found.append(f"Nothing looked for these kinds of trigger: {', '.join(report.not_covered)}.")
    blind = [
        f"{item['method']} could not look: {item['reason']}"
        for item in report.evidence
        if item["outcome"] == Outcome.COULD_NOT_LOOK
    ]
    found += blind
    if report.facts.known_gaps is not None:
        found.append(str(report.facts.known_gaps["sentence"]))
    if not known:
        found.append("Nobody recorded who uploaded it: ask where it comes from.")
    if report.facts.training_set is None:
        found.append("It names no training set, so that none was looked at.")
    if report.facts.gate is not None and report.facts.gate.let_through:
        found.append(report.facts.gate.sentence)
    if not report.facts.evidence:
        found.append("No method examined it.")
    return found
