"""A report, or a list of verdicts, as SARIF 2.1.0: the format in which scanners report findings.

Format: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html. A model has no lines, so
that a result names its class as a logical location and the model's file as the physical one.

A method that could not look gives a result of kind `review` and a notification; a model that was
not judged gives an error. Neither is ever a pass.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from guard import __version__
from guard.core.digests import json_digest
from guard.core.evidence import Outcome
from guard.core.plain import to_plain
from guard.core.states import Verdict
from guard.core.text import printable
from guard.reports._methods import Accusation, about, accusations, class_name, could_not_look
from guard.reports.judged import HELP, Judged, Ruling
from guard.reports.report import Report, finite

SCHEMA_URI = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
NOT_COVERED = "coverage/not-covered"
#: By the verdict: a finding that the policy did not act on is a note.
_LEVELS = {Verdict.REJECTED: "error", Verdict.HELD: "warning", Verdict.INCONCLUSIVE: "warning"}
_SEVERITY = {"error": "9.0", "warning": "6.0", "note": "2.0", "none": "0.0"}


def render_sarif(report: Report, *, where: str = "") -> dict[str, Any]:
    """The SARIF log of one report.

    Args:
        where: the path of the model's file as the caller named it.
    """
    judged = judge(report, where)
    results = [_verdict(judged), *_of_methods(report, judged)]
    if missing := report.not_covered:
        text = f"No method of this scan looks for triggers of: {', '.join(missing)}."
        results.append(_result(judged, NOT_COVERED, text, "none", kind="review"))
    run = _run([judged], results, report.evidence)
    run["automationDetails"] = {"id": f"registry-guard/{printable(report.name)}/"}
    run["properties"] = _facts(report)
    run["invocations"][0]["toolExecutionNotifications"] += [
        _notification(
            f"{item['method']} could not look: {item.get('reason') or 'no reason was given'}",
            "error" if judged.ruling is Ruling.UNKNOWN else "warning",
            rule=_rule_of(item),
        )
        for item in report.evidence
        if could_not_look(item)
    ]
    return _log(run)


def verdicts_sarif(models: Sequence[Judged], code: int) -> dict[str, Any]:
    """The SARIF log of a list of models, of each its verdict alone.

    Args:
        code: the exit code of the command.
    """
    run = _run(models, [_verdict(one) for one in models], ())
    run["invocations"][0]["exitCode"] = code
    return _log(run)


def judge(report: Report, where: str = "") -> Judged:
    """The verdict of a report as other tools read it."""
    return Judged(
        name=report.name,
        digest=report.digest,
        verdict=report.verdict,
        code=report.exit_code,
        reasons=report.reasons,
        where=where,
    )


def _log(run: Mapping[str, Any]) -> dict[str, Any]:
    log: dict[str, Any] = finite({"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [run]})
    return log


def _run(
    models: Sequence[Judged], results: list[dict[str, Any]], evidence: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    rules = [*_verdict_rules(models), *_method_rules(evidence), _coverage_rule()]
    places = {rule["id"]: place for place, rule in enumerate(rules)}
    for result in results:
        result["ruleIndex"] = places[result["ruleId"]]
    unknown = [one for one in models if one.ruling is Ruling.UNKNOWN]
    return {
        "tool": {
            "driver": {"name": "registry-guard", "version": __version__, "rules": rules},
        },
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": not unknown,
                "exitCode": max((one.code for one in models), default=0),
                "toolExecutionNotifications": [
                    _notification(f"{one.name}: {one.message}", "error", rule=_verdict_id(one))
                    for one in unknown
                ],
            }
        ],
        "artifacts": [
            {"location": {"uri": _uri(one)}, **({"hashes": hashes} if hashes else {})}
            for one in models
            for hashes in [{"sha-256": one.digest} if one.digest else {}]
        ],
        "results": results,
    }


def _verdict(judged: Judged) -> dict[str, Any]:
    """The verdict as a result: a pass, or a failure that no viewer hides."""
    level = _level_of(judged)
    kind = "pass" if judged.ruling is Ruling.PASSED else "fail"
    return _result(judged, _verdict_id(judged), judged.message, level, kind=kind)


def _level_of(judged: Judged) -> str:
    if judged.ruling is Ruling.PASSED:
        return "none"
    return "warning" if judged.verdict is Verdict.HELD else "error"


def _of_methods(report: Report, judged: Judged) -> list[dict[str, Any]]:
    results, seen = [], Counter[str]()
    for item in report.evidence:
        accused = list(accusations(report, item))
        results += [_accusation(report, judged, item, one, seen) for one in accused]
        if not accused:
            results.append(_unaccused(judged, item))
    return results


def _accusation(
    report: Report, judged: Judged, item: Mapping[str, Any], one: Accusation, seen: Counter[str]
) -> dict[str, Any]:
    finding = one.finding
    level = _LEVELS.get(report.verdict, "note")
    key = f"{finding['family']}/{finding['target']}"
    rule = _rule_of(item)
    seen[rule + key] += 1  # a class may have several triggers of one family
    found = _result(
        judged,
        rule,
        finding["statement"],
        level,
        key=f"{key}/{seen[rule + key]}",
        target=class_name(report, finding["target"]),
    )
    if math.isfinite(score := float(finding["score"])):
        found["rank"] = 100 * min(1.0, max(0.0, score))
    found["properties"] = {**one.numbers, "coverage": list(item["families"])}
    if one.waiver is not None:
        found["suppressions"] = [
            {
                "kind": "external",
                "status": "accepted",
                "justification": printable(one.waiver.sentence),
            }
        ]
    return found


def _unaccused(judged: Judged, item: Mapping[str, Any]) -> dict[str, Any]:
    """What a method reports that accuses nothing; a method that did not look asks for a look."""
    families = ", ".join(item["families"]) or "no trigger"
    if could_not_look(item):
        reason = item.get("reason") or "no reason was given"
        text, kind = f"{item['method']} could not look for {families}: {reason}", "review"
    elif item["outcome"] == Outcome.MEASURED:
        text, kind = f"{item['method']} measured; it accuses nothing.", "informational"
    else:
        text, kind = f"{item['method']} looked for {families} and found nothing suspicious.", "pass"
    found = _result(judged, _rule_of(item), text, "none", kind=kind)
    found["properties"] = {
        "coverage": [] if could_not_look(item) else list(item["families"]),
        **{key: item[key] for key in ("accuracy", "quality") if item.get(key)},
    }
    return found


def _result(
    judged: Judged,
    rule: str,
    text: str,
    level: str,
    *,
    kind: str = "fail",
    key: str = "",
    target: str = "",
) -> dict[str, Any]:
    model = printable(judged.name)
    inside = {"name": printable(target), "fullyQualifiedName": f"{model}/class {printable(target)}"}
    logical = {**inside, "kind": "class"} if target else {"name": model, "kind": "model"}
    return {
        "ruleId": rule,
        "kind": kind,
        "level": level,
        "message": {"text": printable(text)},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": _uri(judged)}},
                "logicalLocations": [logical],
            }
        ],
        # Of these bytes, and of this model whatever its bytes.
        "fingerprints": {"registryGuard/v1": json_digest([judged.digest, rule, key])},
        "partialFingerprints": {"registryGuardModel/v1": json_digest([judged.name, rule, key])},
    }


def _uri(judged: Judged) -> str:
    if not judged.where:
        return quote(judged.name, safe="") or "model"
    if "://" in judged.where:
        return quote(judged.where, safe=":/@")
    path = PurePath(judged.where)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())


def _rule_of(item: Mapping[str, Any]) -> str:
    return f"method/{item['method']}"


def _verdict_id(judged: Judged) -> str:
    return f"verdict/{judged.key}"


def _notification(text: str, level: str, *, rule: str) -> dict[str, Any]:
    return {
        "level": level,
        "message": {"text": printable(text)},
        "associatedRule": {"id": rule},
    }


def _verdict_rules(models: Sequence[Judged]) -> list[dict[str, Any]]:
    levels = {one.key: _level_of(one) for one in models}
    return [
        _rule(f"verdict/{key}", HELP[key][0], HELP[key][1], level=levels[key], tags=["verdict"])
        for key in sorted(levels)
    ]


def _method_rules(evidence: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = {}
    for item in evidence:
        known = about(item["method"])
        looks = ", ".join(sorted(known.families)) or "no trigger"
        text = f"It looks for: {looks}. A finding is a sign and no proof: `guard report` shows the "
        text += "recovered trigger and its attack success rate on hold-out images."
        found[_rule_of(item)] = _rule(
            _rule_of(item),
            known.about,
            f"{text} {known.paper}".strip(),
            level="warning",
            tags=["method", *sorted(known.families)],
            version=item["version"],
        )
    return list(found.values())


def _coverage_rule() -> dict[str, Any]:
    return _rule(
        NOT_COVERED,
        "Trigger families that no method of the scan looked for.",
        "A backdoor of such a family would not have been found. `guard methods list` shows the "
        "methods and their families; the policy chooses.",
        level="none",
        tags=["coverage"],
    )


def _rule(
    name: str, short: str, text: str, *, level: str, tags: list[str], version: int | None = None
) -> dict[str, Any]:
    return {
        "id": name,
        "name": "".join(part.capitalize() for part in name.replace("/", "_").split("_")),
        "shortDescription": {"text": short},
        "fullDescription": {"text": text},
        "help": {"text": text, "markdown": text},
        "defaultConfiguration": {"level": level},
        "properties": {
            "tags": ["security", "backdoor", *tags],
            "security-severity": _SEVERITY[level],
            **({} if version is None else {"version": version}),
        },
    }


def _facts(report: Report) -> dict[str, Any]:
    """What holds for the whole model: the ASR with its interval, coverage and known gaps."""
    facts = report.facts
    return {
        "verdict": str(facts.verdict),
        "score": report.score,
        "target": facts.target,
        "asr": to_plain(facts.asr),
        "asrUpper": facts.asr_upper,
        "coverage": list(facts.coverage),
        "notCovered": report.not_covered,
        "knownGaps": to_plain(facts.known_gaps),
        "accuracy": report.accuracy,
        "sha256": report.digest,
        "policy": report.policy,
        "parent": facts.parent,
        "scan": report.scan_id,
        "verdictId": report.verdict_id,
        "expiresAt": report.expires_at,
        "source": report.source,
    }
