"""Everything a reader may want to know about one scan, from the evidence in hand or from the store."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from guard.attest import dsse
from guard.cleansets import load
from guard.core.errors import GuardError, InputError
from guard.core.evidence import AsrEstimate, CleanSetFacts, Evidence, Finding, PurificationFacts, Target
from guard.core.manifest import Manifest
from guard.core.states import Verdict
from guard.flow.context import Guard
from guard.flow.repair import asr_of, facts_from_dict
from guard.flow.vet import open_model, restore_trigger
from guard.reports.report import Answered, Demonstration, RecoveredTrigger, Report, methods_of
from guard.store import artifacts, ledger, scans
from guard.store import cleansets as cleanset_rows
from guard.store import evidence as evidence_rows
from guard.store.rows import ScanRow
from guard.store.session import reading

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.ml.architectures import ImageModel
    from guard.ml.cleanset import Labelled
    from guard.ml.triggers import Trigger
    from guard.policy import Decision

MOST_SHOWN, MOST_PICTURES = 4, 6  # of the parent's triggers, and pictures of each; bars show them all
Pictures = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]  # uint8 N,C,H,W and their labels


def from_decision(decision: "Decision", *, digest: str, name: str, policy: str, manifest: Manifest,
                  cleanset: CleanSetFacts, evidence: Sequence[Evidence], triggers: Mapping[str, bytes],
                  pictures: Pictures, seconds: float, purification: PurificationFacts | None = None,
                  candidates: Sequence[Mapping[str, Any]] = (),
                  replayed_before: Sequence[AsrEstimate] = (),
                  known_gaps: Mapping[str, Any] | None = None) -> Report:
    """A report on what was just decided, with no store behind it."""
    return Report(
        digest=digest, name=name, verdict=decision.verdict, score=decision.score, target=decision.target,
        asr=decision.asr, asr_upper=decision.asr_upper, calibration=decision.calibration,
        coverage=decision.coverage, known_gaps=known_gaps, methods=methods_of(evidence), seconds=seconds, policy=policy,
        reasons=decision.reasons, manifest=manifest, cleanset=cleanset, evidence=[item.to_dict() for item in evidence],
        triggers=recovered(evidence, triggers, pictures), candidates=candidates, replayed_before=replayed_before,
        **_purified(purification),
    )


def report_for(guard: Guard, scan_id: str) -> Report:
    """The report on a scan of the service.

    Raises:
        InputError: there is no such scan, or it has no verdict yet.
    """
    with reading(guard.engine) as session:
        scan = scans.get(session, scan_id)
        if scan.verdict_id is None:
            raise InputError(f"Scan {scan.id} is {scan.state} and has no verdict yet; `guard status --watch` follows.",
                             code="no_verdict")
        row = ledger.get(session, scan.verdict_id)
        found = evidence_rows.for_artifact(session, row.artifact_digest, scan.cleanset_digest)
        facts = cleanset_rows.get(session, scan.cleanset_digest) if scan.cleanset_digest else None
        artifact = artifacts.find(session, row.artifact_digest)
        stored = scan.detail.get("purification")
        parent = evidence_rows.for_artifact(session, stored["parent"], scan.cleanset_digest) if stored else []
        tried = _candidates(session, scan)
    said = dsse.payload(row.envelope)["predicate"]
    manifest = Manifest.from_dict(dict(artifact.manifest)) if artifact is not None and artifact.manifest else None
    asr = said.get("asr")
    report = Report(
        digest=row.artifact_digest, name=scan.name, verdict=Verdict(row.verdict),
        # A verdict that needed no score (unvettable, inconclusive) is no sign of innocence.
        score=said["score"] if said.get("score") is not None else 1.0,
        target=said.get("target"), asr=AsrEstimate(**asr) if asr else None, asr_upper=said.get("asr_upper"),
        calibration=said.get("calibration"), coverage=said.get("coverage", ()), known_gaps=said.get("known_gaps"),
        methods=methods_of(found), seconds=(scan.updated_at - scan.created_at).total_seconds(),
        policy=row.policy_digest, reasons=said.get("reasons", ()), manifest=manifest, cleanset=facts,
        evidence=[item.to_dict() for item in found],
        triggers=_stored_triggers(guard, found, facts), candidates=tried, replayed_before=asr_of(parent),
        scan_id=scan.id, verdict_id=row.id, issued_at=said.get("issued_at"), expires_at=said.get("expires_at"),
        **_purified(facts_from_dict(stored) if stored else None),
    )
    return report if not stored or facts is None else _stored_demonstrations(guard, report, parent, facts)


def _purified(facts: PurificationFacts | None) -> dict[str, Any]:
    if facts is None:
        return {}
    return {"parent": facts.parent, "defense": facts.defense, "after": facts.after, "defense_version": facts.version,
            "parameters": facts.parameters, "acc_before": facts.acc_before,
            "acc_after": facts.acc_after, "replayed": facts.replayed, "resampled": facts.resampled,
            "relearned": facts.relearned, "woken": facts.woken, "shared": facts.shared, "unproved": facts.unproved}


def _candidates(session: "Session", scan: ScanRow) -> list[dict[str, Any]]:
    """What was tried on a rejected parent, without the bulk of the facts; a candidate's own page shows its rivals."""
    if scan.parent_scan_id is not None:
        scan = scans.get(session, scan.parent_scan_id)
    found = []
    for item in scan.detail.get("candidates", []):
        plain = {key: value for key, value in item.items() if key != "facts"}
        if "facts" in item:
            plain |= {"acc_after": item["facts"]["acc_after"]["overall"], "seconds": item["facts"]["seconds"]}
        if "child" in item:
            plain |= _judged(session, item["child"])
        found.append(plain)
    return found


def _judged(session: "Session", scan_id: str) -> dict[str, Any]:
    """The verdict in force on a candidate; nothing where it waits for one, or its scan failed."""
    verdict_id = scans.get(session, scan_id).verdict_id
    if verdict_id is None:
        return {}
    row = ledger.get(session, verdict_id)
    return {"verdict": str(row.verdict), "reasons": list(dsse.payload(row.envelope)["predicate"].get("reasons", ()))}


def _stored_triggers(guard: Guard, evidence: Sequence[Evidence], facts: CleanSetFacts | None) -> list[RecoveredTrigger]:
    data = _trigger_bytes(guard, evidence)
    if not data or facts is None:
        return []
    _, images, labels, split = load(guard.blobs.path(facts.digest).read_bytes(), facts.name)
    return recovered(evidence, data, (images[split == 2], labels[split == 2]))


def _trigger_bytes(guard: Guard, evidence: Sequence[Evidence]) -> dict[str, bytes]:
    data = {}
    for digest in (f.trigger_digest for item in evidence for f in item.findings if f.trigger_digest):
        try:
            data[digest] = guard.blobs.path(digest).read_bytes()
        except GuardError:
            continue  # a picture that is gone must not hide the verdict; `guard verify` names what is missing
    return data


def _stored_demonstrations(guard: Guard, report: Report, evidence: Sequence[Evidence], facts: CleanSetFacts) -> Report:
    from guard.ml.cleanset import CuratedSet

    try:
        curated = CuratedSet.from_arrays(*load(guard.blobs.path(facts.digest).read_bytes(), facts.name))
        # On the CPU: a few pictures, and whoever reads a report may have no other device.
        parent, child = (open_model(guard.blobs.path(digest or ""), device="cpu")
                         for digest in (report.parent, report.digest))
        return demonstrated(report, parent, child, evidence, _trigger_bytes(guard, evidence), curated.holdout)
    except GuardError:
        return report  # as above


def demonstrated(report: Report, parent: "ImageModel", child: "ImageModel", evidence: Sequence[Evidence],
                 data: Mapping[str, bytes], holdout: "Labelled") -> Report:
    """The report on a purified artifact with its parent's triggers on hold-out pictures, and what both models answer.

    Args:
        child: the artifact that the report is about.
        evidence: the parent's.
        data: the bytes of its triggers, by digest; what is not there is not shown.
    """
    from guard.ml.measure import predict

    shown: list[Demonstration] = []
    for finding, after in _suspected(evidence, report.replayed):
        stored = data.get(finding.trigger_digest or "")
        if stored is None or len(shown) == MOST_SHOWN:
            continue
        trigger = restore_trigger(stored)
        some, wanted = _of_each_class(holdout, trigger, finding.target)
        if not wanted:
            continue
        answers = [predict(model, some, trigger=trigger).tolist() for model in (parent, child)]
        worn = trigger.apply(some.floats()).numpy()
        pictures = [Answered(picture=picture, label=label, wanted=aim, before=old, after=new) for
                    picture, label, aim, old, new in zip(worn, some.labels.tolist(), wanted, *answers, strict=True)]
        shown.append(Demonstration(family=finding.family, target=finding.target, before=finding.asr, after=after,
                                   pictures=pictures))
    return replace(report, demonstrations=shown)


def _suspected(evidence: Sequence[Evidence],
               replayed: Sequence[AsrEstimate]) -> list[tuple[Finding, AsrEstimate | None]]:
    """Each suspicious trigger with its ASR on the child; the first ones of all classes before any second one."""
    left, turns = list(replayed), Counter[str]()
    found = []
    for finding in (one for item in evidence for one in item.findings if one.suspicious and one.trigger_digest):
        place = next((index for index, one in enumerate(left)
                      if (one.target, one.family) == (finding.target, finding.family)), None)
        found.append((turns[str(finding.target)], finding, None if place is None else left.pop(place)))
        turns[str(finding.target)] += 1
    return [(finding, after) for _, finding, after in sorted(found, key=lambda one: one[0])]


def _of_each_class(holdout: "Labelled", trigger: "Trigger", target: Target) -> tuple["Labelled", list[int]]:
    """The first picture of each class that the trigger leads elsewhere, of evenly spread ones, and where it leads."""
    from guard.ml.triggers import MappedTrigger

    first: dict[int, tuple[int, int]] = {}
    for place, label in enumerate(holdout.labels.tolist()):
        wanted = int(trigger.mapping[label]) if isinstance(trigger, MappedTrigger) else target
        if isinstance(wanted, int) and wanted != label:
            first.setdefault(label, (place, wanted))
    every = [first[label] for label in sorted(first)]
    spread = np.linspace(0, len(every) - 1, min(MOST_PICTURES, len(every))).round().astype(int).tolist()
    chosen = [every[index] for index in spread]
    return holdout.pick(holdout.labels.new_tensor([place for place, _ in chosen])), [wanted for _, wanted in chosen]


def recovered(evidence: Sequence[Evidence], data: Mapping[str, bytes], pictures: Pictures) -> list[RecoveredTrigger]:
    """Every stored trigger as pictures, each stamped on one clean image of another class."""
    from guard.ml.trigger_files import looks

    found = []
    for item in evidence:
        for finding in item.findings:
            if finding.trigger_digest is None or finding.trigger_digest not in data:
                continue
            images, labels = pictures
            target = finding.target if isinstance(finding.target, int) else None
            others = [index for index, label in enumerate(labels) if label != target]
            clean = images[others[0]] if others else np.full(images.shape[1:], 127, np.uint8)
            shown = looks(data[finding.trigger_digest], clean)
            found.append(RecoveredTrigger(family=finding.family, target=finding.target, digest=finding.trigger_digest,
                                          mask=shown.mask, pattern=shown.pattern,
                                          picture=shown.stamped if others else None))
    return found
