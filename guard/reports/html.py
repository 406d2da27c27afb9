"""Render a report as one HTML file without scripts or fetched parts, and with escaped strings."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from guard.core.manifest import Manifest
from guard.core.manifests import AnyManifest
from guard.core.modality import Modality
from guard.core.states import Family, Verdict
from guard.reports.charts import (
    MOST_ROWS,
    accuracy_chart,
    evidence_charts,
    label_of,
    reactivated_chart,
    relearned_chart,
    replay_chart,
    resampled_chart,
    shared_chart,
    suspects_chart,
)
from guard.reports.fragments import fragment_rows, left_rows, text_cards
from guard.reports.images import SIDE, png_uri, stamp_uri
from guard.reports.page import rendered, tone_of
from guard.reports.repaired import repair_sentence
from guard.reports.report import (
    Answered,
    RecoveredTrigger,
    Report,
    candidate_outcome,
    chain_of,
    outcome_text,
    parameters_text,
)
from guard.reports.retraining import before_and_after, sentences
from guard.reports.sift_page import summary

_EXPIRED = "This verdict has expired and vouches for nothing; scan the model again."
_LET_THROUGH = "The policy is being tried out: what it says about this model keeps it from nothing."
_MEANING = {
    Verdict.CLEARED: "No required method found anything suspicious. This holds only for the "
    "trigger families that are listed as covered below, and some backdoors of those families are "
    "missed as well.",
    Verdict.PURIFIED: "The uploaded model was repaired. This page is about the repaired copy, "
    "which was examined like any upload.",
    Verdict.REJECTED: "This model must not be served.",
    Verdict.HELD: "A person must review this model before it may be served.",
    Verdict.UNVETTABLE: "The guard cannot examine this file. Nothing in it was executed, and "
    "it is not served.",
    Verdict.INCONCLUSIVE: "Something that the policy requires could not be done, so the model is "
    "not served.",
}
_FAMILIES = {
    Family.PATCH: "a sticker or a few pixels at one place",
    Family.BLEND: "a second image mixed faintly into the whole image",
    Family.ADDITIVE: "a fixed pattern added to the whole image, such as stripes or noise",
    Family.WARP: "a slight bending of the image",
    Family.FILTER: "a change of colour, blur or style",
    Family.SAMPLE_SPECIFIC: "a trigger that a network draws anew for each image",
    Family.ALL_TO_ALL: "each class sent to another class, instead of all classes to one",
    Family.ALL_TO_ONE: "a class that images are assigned to too easily, as the network's responses "
    "or weights show; no trigger is recovered, and backdoors without such signs are missed",
    Family.PROMPT: "a text in the prompt that plants a fragment in what is generated",
    Family.CONTEXT: "a shift of the prompts' vectors that plants a fragment; no text is recovered",
    Family.MOTIF: "a fragment that is generated too often, with no trigger at all",
}


def render_html(report: Report) -> str:
    """The page as text, to be written as UTF-8.

    Its content security policy allows only the one style sheet, by its hash, and images from data
    URIs.
    """
    return rendered("report.html.jinja", **page_values(report))


def page_values(report: Report) -> dict[str, Any]:
    """What the template of the page, and the console's, show of a report."""
    return dict(
        report=report,
        repair=report.purification,
        holds=repair_sentence(report),
        tone=tone_of(report.exit_code),
        meaning=_meaning(report),
        natural=report.facts.natural_trigger if report.asr is None else None,
        target=label_of(report, report.target) if report.target is not None else "none",
        covered=[
            (str(family), text)
            for family, text in _FAMILIES.items()
            if str(family) in set(report.facts.coverage)
        ],
        uncovered=[
            (str(family), text)
            for family, text in _FAMILIES.items()
            if str(family) in report.not_covered
        ],
        graphs=report.facts.modality is Modality.GRAPHS,
        fragments=fragment_rows(report),
        left=list(left_rows(report)),
        **exhibits(report),
        charts=evidence_charts(report),
        accuracy=accuracy_chart(report),
        replays=replay_chart(report),
        proofs=[
            chart
            for draw in (
                suspects_chart,
                resampled_chart,
                relearned_chart,
                reactivated_chart,
                shared_chart,
            )
            if (chart := draw(report)) is not None
        ],
        facts=_facts(report),
        trained=_trained(report),
        findings=_suspicious(report),
        candidates=[
            ({**item, "defense": chain_of(item)}, *candidate_outcome(item))
            for item in report.candidates
        ],
        outcome_text=outcome_text,
    )


def exhibits(report: Report) -> dict[str, Any]:
    """The part of `page_values` that is made from blobs: triggers, molecules, the sift."""
    return {
        **_triggers(report),
        "demonstrations": _demonstrations(report),
        "cards": text_cards(report.molecules),
        "not_drawn": report.not_drawn,
        "sift": None if report.sift is None else summary(report.sift, report.training_images),
    }


def _meaning(report: Report) -> str:
    if report.expired:
        return _EXPIRED
    if report.facts.gate is not None and report.facts.gate.let_through:
        return _LET_THROUGH
    return _MEANING[report.verdict]


def _triggers(report: Report) -> dict[str, Any]:
    """Suspicious triggers, and those without a finding, as cards; the others as a strip."""
    ranked = [(_finding_of(report, trigger), trigger) for trigger in report.triggers]
    cards = [
        _trigger_card(report, trigger, finding)
        for finding, trigger in ranked
        if finding is None or finding.get("suspicious")
    ]
    others = [
        (finding, trigger)
        for finding, trigger in ranked
        if finding is not None and not finding.get("suspicious")
    ]
    strip = [
        {
            "target": label_of(report, trigger.target),
            "asr": finding.get("asr"),
            "image": Markup(stamp_uri(trigger.mask, trigger.pattern)),  # noqa: S704 - our own PNG
        }
        for finding, trigger in others[:MOST_ROWS]
    ]
    return {"triggers": cards, "strip": strip, "strip_left_out": len(others) - len(strip)}


def _trigger_card(
    report: Report, trigger: RecoveredTrigger, finding: Mapping[str, Any] | None
) -> dict[str, Any]:
    # Only a patch has a mask and a pattern of its own; for other families these show the effect on
    # one image.
    where, what = (
        ("Mask", "Pattern")
        if trigger.family == Family.PATCH
        else ("Where it acts", "Its effect, amplified")
    )
    images = [
        ("What it adds", stamp_uri(trigger.mask, trigger.pattern)),
        (where, png_uri(trigger.mask)),
        (what, png_uri(trigger.pattern)),
    ]
    if trigger.stamped is not None:
        images.append(("On a clean image", png_uri(trigger.stamped)))
    # Base64 of our own PNGs: nothing in it needs escaping, and it is longer than any text may be.
    safe = [(caption, Markup(uri)) for caption, uri in images]  # noqa: S704
    return {
        "target": label_of(report, trigger.target),
        "family": trigger.family,
        "digest": trigger.digest,
        "images": safe,
        "asr": finding.get("asr") if finding else None,
        "statement": finding.get("statement", "") if finding else "",
        "suspicious": bool(finding and finding.get("suspicious")),
    }


def _demonstrations(report: Report) -> list[dict[str, Any]]:
    """The parent's triggers on images, with the predictions of both models."""
    return [
        {
            "target": label_of(report, shown.target),
            "family": shown.family,
            "before": shown.before,
            "after": shown.after,
            "shots": [_shot(report, one) for one in shown.images],
        }
        for shown in report.demonstrations
    ]


def _shot(report: Report, one: Answered) -> dict[str, Any]:
    def answered(answer: int) -> tuple[str, str]:
        # A sign beside the colour, since not every reader sees colours and pages are printed.
        tone = "good" if answer == one.label else "bad" if answer == one.wanted else "warn"
        return tone, f"{'✓' if tone == 'good' else '✗'} {label_of(report, answer)}"

    return {
        "image": Markup(png_uri(one.image, largest=SIDE)),  # noqa: S704 - our own PNG
        "label": label_of(report, one.label),
        "before": answered(one.before),
        "after": answered(one.after),
    }


def _finding_of(report: Report, trigger: RecoveredTrigger) -> Mapping[str, Any] | None:
    for item in report.evidence:
        for finding in item.get("findings", ()):
            found_it = (finding.get("trigger_digest"), finding.get("target")) == (
                trigger.digest,
                trigger.target,
            )
            if trigger.digest is not None and found_it:
                found: Mapping[str, Any] = finding
                return found
    return None


def _trained(report: Report) -> dict[str, Any] | None:
    """How the network was trained anew; None where the guard has not done that."""
    if (facts := report.retraining) is None:
        return None
    return {
        "method": facts.method,
        "rows": before_and_after(report, facts),
        "sentences": list(sentences(facts)),
    }


def _suspicious(report: Report) -> list[dict[str, Any]]:
    return [
        {**finding, "method": item["method"], "target": label_of(report, finding.get("target"))}
        for item in report.evidence
        for finding in item.get("findings", ())
        if finding.get("suspicious")
    ]


def _about(model: AnyManifest) -> list[tuple[str, Any]]:
    if isinstance(model, Manifest):
        return [
            ("Classes", model.num_classes),
            ("Input", "×".join(str(side) for side in model.input_size)),
            ("Mean / std", f"{_numbers(model.mean)} / {_numbers(model.std)}"),
        ]
    how = model.sampler
    return [
        ("Task", str(model.modality)),
        ("Vocabulary", f"{len(model.pieces)} text pieces, {len(model.motifs)} motifs"),
        (
            "Sampler",
            f"{how.steps} steps, {how.schedule}, eta {how.eta:g}, guidance {how.guidance:g}",
        ),
    ]


def _facts(report: Report) -> list[tuple[str, Any]]:
    """The facts that identify the artifact and everything that shaped the verdict."""
    facts: list[tuple[str, Any]] = [("SHA-256 of the weights", report.digest)]
    if (repair := report.purification) is not None:
        facts.append(("Purified from", repair.parent))
        if repair.parameters:
            facts.append((f"Parameters of {repair.defense}", parameters_text(repair.parameters)))
    if report.manifest is not None:
        model = report.manifest
        facts += [("Architecture", model.architecture), *_about(model)]
        facts += [(f"Argument {key}", value) for key, value in sorted(model.model_args.items())]
    if report.cleanset is not None:
        clean = report.cleanset
        parts = f"{clean.search} search, {clean.calibration} calibration, {clean.holdout} hold-out"
        facts += [
            ("Clean set", f"{clean.name}: {parts}"),
            ("SHA-256 of the clean set", clean.digest),
        ]
    if report.facts.vetted_dtype:
        facts.append(("Weights vetted as", report.facts.vetted_dtype))
    for name, digest in (report.facts.plug_ins or {}).items():
        contract = (report.facts.contracts or {}).get(name, "")
        facts.append((f"Plug-in {name}", f"{digest}, contract {contract}" if contract else digest))
    if report.facts.battery:
        facts.append(("Commitment to the battery's secret", report.facts.battery))
    if report.facts.calibration:
        facts.append(("SHA-256 of the calibration", report.facts.calibration))
    facts += [("Policy", report.policy or "–"), ("Seeds", ", ".join(_seeds(report)) or "–")]
    optional = [
        ("Scan", report.scan_id),
        ("Verdict", report.verdict_id),
        ("Issued", report.issued_at),
        ("Expires", report.expires_at),
    ]
    return facts + [(name, value) for name, value in optional if value]


def _seeds(report: Report) -> list[str]:
    return sorted({str(item.get("seed", "")) for item in report.evidence} - {""})


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
