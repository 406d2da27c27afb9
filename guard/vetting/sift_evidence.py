"""A sift as evidence about a model: no families, so no coverage; its report is kept beside it."""

from collections.abc import Mapping
from typing import Any

from guard.core.digests import canonical_json, sha256
from guard.core.evidence import Evidence, Finding, Outcome
from guard.core.plain import to_plain
from guard.core.sift import (
    DOUBTFUL,
    METHOD,
    PROVEN,
    VERSION,
    LabelMap,
    SiftedClass,
    SiftReport,
    SiftRules,
    SiftVerdict,
)
from guard.core.states import Family
from guard.policy.training_set import judge_sift
from guard.vetting.parent_comparison import ACCUSED

_SCORES = {SiftVerdict.POISONED: PROVEN, SiftVerdict.REVIEW: DOUBTFUL, SiftVerdict.NOTHING: 0.0}


def report_bytes(report: SiftReport) -> bytes:
    """The report as canonical JSON, the way it is stored."""
    return canonical_json(to_plain(report))


def parameters_of(
    uri: str,
    digest: str | None,
    rules: SiftRules,
    methods: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """What identifies a sift: the set, the rules, and the methods with version and parameters."""
    return {"uri": uri, "set": digest or "", **to_plain(rules), "methods": dict(methods)}


def could_not_look(
    artifact: str, cleanset: str, uri: str, rules: SiftRules, sentence: str, *, seed: int
) -> Evidence:
    """Evidence that a training set could not be read."""
    return Evidence(
        artifact=artifact,
        method=METHOD,
        version=VERSION,
        parameters=parameters_of(uri, None, rules, {}),
        cleanset=cleanset,
        seed=seed,
        outcome=Outcome.COULD_NOT_LOOK,
        families=(),
        reason=sentence,
    )


def evidence_of(
    report: SiftReport,
    artifact: str,
    *,
    uri: str,
    methods: Mapping[str, Mapping[str, Any]],
    blobs: Mapping[str, str],
) -> Evidence:
    """The evidence that a sift gives: one finding for each class that stands out, and for a map.

    Args:
        uri: where the set lies, as its uploader names it.
        methods: those that were asked for, with version and parameters.
        blobs: digests of what else is stored beside it.
    """
    looked = report.verdict is not SiftVerdict.COULD_NOT_LOOK
    facts = report.training_set
    judged = judge_sift(report.classes, report.label_map, report.rules)
    findings = tuple(
        _of_class(one, part.sentence, part.verdict, report)
        if one is not None
        else _of_map(report.label_map, part.sentence, part.verdict)
        for one, part in judged.parts
    )
    failed = [f"{one.method}: {one.failed}" for one in report.methods if one.failed is not None]
    return Evidence(
        artifact=artifact,
        method=METHOD,
        version=VERSION,
        parameters=parameters_of(uri, facts.digest, report.rules, methods),
        cleanset=report.cleanset,
        seed=report.seed,
        outcome=(Outcome.FINDINGS if findings else Outcome.NOTHING)
        if looked
        else Outcome.COULD_NOT_LOOK,
        families=(),
        findings=findings if looked else (),
        reason=" ".join(failed if looked else report.reasons),
        seconds=report.seconds,
        blobs={"report": sha256(report_bytes(report)), **blobs},
    )


def _of_class(one: SiftedClass, sentence: str, verdict: SiftVerdict, report: SiftReport) -> Finding:
    own = [suspect.fdr for suspect in report.suspects if suspect.label == one.label]
    numbers = {"count": float(one.accused), "images": float(one.images)}
    if own:
        numbers["fdr"] = max(own)
    if one.obedience is not None:
        numbers |= {"obedience": one.obedience.estimate, "obedience_low": one.obedience.low}
    if one.source_share is not None:
        numbers["share"] = one.source_share
    return Finding(
        family=ACCUSED,
        target=one.label,
        suspicious=_SCORES[verdict] >= DOUBTFUL,
        score=_SCORES[verdict],
        statement=sentence,
        numbers=numbers,
        asr=None if one.trigger is None else one.trigger.asr,
        trigger_digest=None if one.trigger is None else one.trigger.digest,
    )


def _of_map(found: LabelMap | None, sentence: str, verdict: SiftVerdict) -> Finding:
    numbers = (
        {}
        if found is None
        else {
            "count": float(found.images),
            "share": found.share,
            "obedience": found.obedience.estimate,
            "obedience_low": found.obedience.low,
        }
    )
    return Finding(
        family=ACCUSED,
        target=str(Family.ALL_TO_ALL),
        suspicious=_SCORES[verdict] >= DOUBTFUL,
        score=_SCORES[verdict],
        statement=sentence,
        numbers=numbers,
    )
