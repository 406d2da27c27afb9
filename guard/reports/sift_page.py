"""Render the sift of a training set as one HTML file, and its summary for the model's page."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from markupsafe import Markup

from guard.core.sift import Poisoning, SiftedClass, SiftReport, SiftVerdict
from guard.core.text import printable
from guard.core.trainset import Suspect, TrainingSetFacts
from guard.reports.charts import percent
from guard.reports.images import thumbnail_uri
from guard.reports.page import rendered
from guard.reports.report import TrainingImage, parameters_text
from guard.reports.sift_charts import class_charts, class_name, fdr_chart, standing

MOST_SUSPECTS = 60
MOST_CLEAN = 6  # images a class
MOST_GROUPS = 8  # accused classes whose images are shown
MOST_TRIGGERS = 4
MOST_PAIRS = 3  # of each trigger
MOST_MAPPED = 30  # classes of a label map
MOST_FAULTS = 5
TRIGGER_SIDE = 96

_BADGE = {SiftVerdict.COULD_NOT_LOOK: "could not look", SiftVerdict.NOTHING: "nothing found"}
# Nothing found is no good news: it has no green.
_TONE = {SiftVerdict.POISONED: "bad", SiftVerdict.REVIEW: "warn"}
_SENTENCE = {
    SiftVerdict.POISONED: "This training set holds poisoned images, and the model learnt them.",
    SiftVerdict.REVIEW: "Images are accused, but poison is not their only explanation: a person "
    "must look at them.",
    SiftVerdict.NOTHING: "No poison that the model learnt was found. This clears neither the set "
    "nor the model.",
    SiftVerdict.COULD_NOT_LOOK: "The training set could not be examined as it must be, so nothing "
    "can be concluded from it.",
}
_KINDS = {
    "dirty-label": "triggered images of other classes under one wrong label",
    "clean-label": "triggered images under their own label",
    "all-to-all": "triggered images of each class under the label of another class",
}


def page(
    report: SiftReport,
    shown: Mapping[int, np.ndarray],
    clean: Mapping[int, Sequence[np.ndarray]],
    triggers: Mapping[str, np.ndarray],
) -> str:
    """The page as text, to be written as UTF-8; all images are uint8 C,H,W.

    Args:
        report: what was found.
        shown: accused images by their place in the training set; those without one are counted.
        clean: clean images by label.
        triggers: by digest of an estimated trigger, 2n,C,H,W: each clean image is followed by the
            same one with the trigger.
    """
    groups, left_out = _groups(report, shown, clean)
    return rendered(
        "sift.html.jinja",
        report=report,
        facts=report.training_set,
        tone=_TONE.get(report.verdict, "dull"),
        badge=_BADGE.get(report.verdict, str(report.verdict)),
        **_head(report),
        groups=groups,
        left_out=left_out,
        rows=_rows(report),
        triggers=_triggers(report, triggers),
        charts=class_charts(report),
        curve=fdr_chart(report),
        mapped=_mapped(report),
        spoken=[(kind, text) for kind, text in _KINDS.items() if kind in _spoken(report)],
        unspoken=[(kind, text) for kind, text in _KINDS.items() if kind not in _spoken(report)],
        limits=list(_limits(report)),
        methods=[(one, parameters_text(one.parameters)) for one in report.methods],
        provenance=_provenance(report),
    )


def summary(report: SiftReport, images: Sequence[TrainingImage] = ()) -> dict[str, Any]:
    """What the model's own page shows of a sift, with some of the set's images."""
    head = _head(report)
    return {
        "verdict": _BADGE.get(report.verdict, str(report.verdict)),
        "tone": _TONE.get(report.verdict, "dull"),
        "sentence": head["sentence"],
        "accused": f"{len(report.suspects):,}",
        "images": f"{report.training_set.images:,}",
        "wrongly": head["wrongly"],
        "reasons": report.reasons,
        "remarks": report.remarks,
        "rows": _rows(report),
        "uri": report.training_set.uri,
        "digest": report.training_set.digest,
        "shots": [_small(report, one) for one in images if one.accused],
        "clean": [_small(report, one) for one in images if not one.accused],
    }


def _small(report: SiftReport, one: TrainingImage) -> dict[str, Any]:
    label = class_name(report, one.label)
    looks = "unsure" if one.looks is None else class_name(report, one.looks)
    return {"image": _thumbnail(one.image), "label": label, "looks": looks}


def _head(report: SiftReport) -> dict[str, Any]:
    """What the first screen answers: is it poisoned, how sure, which class, what the model does."""
    found, moved = standing(report), report.label_map
    first = found[0] if found else None
    names = [class_name(report, one.label) for one in found[:3]]
    if len(found) > len(names):
        names.append(f"{len(found) - len(names)} more")
    if first is None and moved is not None:
        names.append(f"a map of {sum(label >= 0 for label in moved.mapping)} classes")
    rates = [one.fdr for one in report.suspects if math.isfinite(one.fdr)]
    return {
        "sentence": _SENTENCE[report.verdict],
        "first": first,
        "names": ", ".join(names),
        "obedience": first.obedience if first is not None else moved and moved.obedience,
        "trigger": next((one.trigger for one in found if one.trigger is not None), None),
        "wrongly": max(rates, default=None),
        "clean_label": first is not None and first.poisoning is Poisoning.CLEAN_LABEL,
    }


def _groups(
    report: SiftReport,
    shown: Mapping[int, np.ndarray],
    clean: Mapping[int, Sequence[np.ndarray]],
) -> tuple[list[dict[str, Any]], int]:
    """Accused images by class, the most conspicuous first; how many of them are not shown."""
    found = standing(report)[:MOST_GROUPS]
    labels = {one.label for one in found}
    by_class = {
        one.label: [suspect for suspect in report.suspects if suspect.label == one.label]
        for one in found
    }
    mapped = [one for one in report.suspects if one.label not in labels]
    chosen = _taken([*by_class.values(), mapped], shown)
    groups = [
        {
            "title": f"Labelled {class_name(report, one.label)}",
            "kind": one.poisoning,
            "remark": one.remark,
            "count": f"{len(by_class[one.label]):,} of its {one.images:,} images are accused",
            "shots": [_shot(report, suspect, shown[suspect.index]) for suspect in suspects],
            "clean": [_thumbnail(image) for image in list(clean.get(one.label, ()))[:MOST_CLEAN]],
        }
        for one, suspects in zip(found, chosen, strict=False)
    ]
    if mapped:
        several = dict.fromkeys(one.label for one in chosen[-1])
        groups.append(
            {
                "title": "Under other labels",
                "kind": None,
                "remark": None,
                "count": f"{len(mapped):,} images are accused",
                "shots": [_shot(report, one, shown[one.index], mixed=True) for one in chosen[-1]],
                "clean": [
                    _thumbnail(image)
                    for label in list(several)[:MOST_CLEAN]
                    for image in list(clean.get(label, ()))[:1]
                ],
            }
        )
    return groups, len(report.suspects) - sum(len(suspects) for suspects in chosen)


def _taken(
    groups: Sequence[Sequence[Suspect]], shown: Mapping[int, np.ndarray]
) -> list[list[Suspect]]:
    """Of each group the first ones with an image, so many that all together are few enough."""
    pools = [[one for one in group if one.index in shown] for group in groups]
    rounds = [
        [(place, one) for place, pool in enumerate(pools) for one in pool[turn : turn + 1]]
        for turn in range(MOST_SUSPECTS)
    ]
    counts = [0] * len(pools)
    for place, _ in list(chain.from_iterable(rounds))[:MOST_SUSPECTS]:
        counts[place] += 1
    return [pool[:count] for pool, count in zip(pools, counts, strict=True)]


def _shot(
    report: SiftReport, one: Suspect, image: np.ndarray, *, mixed: bool = False
) -> dict[str, Any]:
    looks = "unsure" if one.estimated is None else class_name(report, one.estimated)
    numbers = "".join(f", p {name} {value:.2g}" for name, value in sorted(one.numbers.items()))
    label = class_name(report, one.label)
    return {
        "image": _thumbnail(image),
        "looks": f"{looks}, labelled {label}" if mixed else looks,
        "proof": one.proof,
        "alt": f"image {one.index}, labelled {label}, looks like {looks}",
        "about": f"{printable(one.source, limit=200)} (image {one.index}): labelled {label}, looks "
        f"like {looks}, estimated false discovery rate {percent(one.fdr)}{numbers}",
    }


def _thumbnail(image: np.ndarray) -> Markup:
    return Markup(thumbnail_uri(image))  # noqa: S704 - our own PNG


def _rows(report: SiftReport) -> list[dict[str, Any]]:
    """The classes that stand out as rows of a table."""
    return [
        {
            "name": class_name(report, one.label),
            "accused": f"{one.accused:,} of {one.images:,}",
            "kind": str(one.poisoning or "–"),
            "obedience": one.obedience,
            "source": one.source_share,
            "asr": None if one.trigger is None else one.trigger.asr,
            "remark": str(one.remark or "–"),
        }
        for one in standing(report)
    ]


def _triggers(report: SiftReport, images: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The estimated triggers, each with its numbers and a few images before and after."""
    found: list[tuple[SiftedClass, Any]] = [
        (one, one.trigger) for one in standing(report) if one.trigger is not None
    ]
    return [
        {
            "name": class_name(report, one.label),
            "family": trigger.family,
            "asr": trigger.asr,
            "siblings": trigger.siblings,
            "digest": trigger.digest,
            "pairs": [
                tuple(
                    Markup(thumbnail_uri(image, largest=TRIGGER_SIDE))  # noqa: S704 - our own PNG
                    for image in pair
                )
                for pair in _pairs(images.get(trigger.digest))
            ],
        }
        for one, trigger in found[:MOST_TRIGGERS]
    ]


def _pairs(images: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
    if images is None:
        return []
    return list(zip(images[0::2], images[1::2], strict=False))[:MOST_PAIRS]


def _mapped(report: SiftReport) -> dict[str, Any] | None:
    found = report.label_map
    if found is None:
        return None
    pairs = [
        (class_name(report, source), class_name(report, label))
        for source, label in enumerate(found.mapping)
        if label >= 0
    ]
    return {
        "pairs": pairs[:MOST_MAPPED],
        "left_out": max(0, len(pairs) - MOST_MAPPED),
        "images": f"{found.images:,}",
        "share": found.share,
        "mutual": found.mutual,
        "obedience": found.obedience,
    }


def _spoken(report: SiftReport) -> set[str]:
    """The kinds of poisoning that methods which did not fail, and accuse, speak about."""
    return {
        kind for one in report.methods if one.failed is None and one.null for kind in one.poisoning
    }


def _limits(report: SiftReport) -> Iterator[str]:
    """What a sift cannot see, a sentence each."""
    facts, rules = report.training_set, report.rules
    yield (
        "Backdoors that are not in the data: made by an attacker who controlled the training "
        "or changed weights."
    )
    yield "Another set than the one that was named: whoever uploads a model chooses it."
    yield "Poison that the model did not learn shows less, since its own features are compared."
    if report.classes:
        least = sorted(max(rules.min_images, one.resolved) for one in report.classes)
        span = f"{least[0]:,}" if least[0] == least[-1] else f"{least[0]:,} to {least[-1]:,}"
        yield f"Fewer than {span} poisoned images in a class cannot be distinguished from chance."
    unread = facts.total - facts.images - facts.skipped
    if unread > 0:
        yield f"{unread:,} images of the set: a sample was taken."
    if facts.skipped:
        yield f"{facts.skipped:,} images that could not be read."
    for one in report.methods:
        if one.failed is not None:
            yield f"What {printable(one.method, limit=40)} looks for: it failed."


def _provenance(report: SiftReport) -> list[tuple[str, str]]:
    """The facts that identify the training set and everything that shaped the sift."""
    facts: TrainingSetFacts = report.training_set
    size = "×".join(str(side) for side in (facts.channels, facts.height, facts.width))
    sampled = facts.total > facts.images + facts.skipped
    found = [
        ("Training set", facts.uri),
        ("SHA-256 of what was read", facts.digest),
        ("SHA-256 of the whole list", facts.origin),
        ("Images", f"{facts.images:,} of {facts.total:,}{', a sample' if sampled else ''}"),
        ("Skipped as broken", f"{facts.skipped:,}"),
        ("Also in the clean set", f"{facts.overlap:,}"),
        ("Copies of an earlier image", f"{facts.duplicates:,}"),
        ("Same image, another label", f"{facts.conflicts:,}"),
        ("Size", size),
        ("Classes", str(len(facts.class_names))),
        ("Classes matched by", facts.classes_by),
        ("SHA-256 of the clean set", report.cleanset),
        ("Least p value", "" if report.least_p is None else f"{report.least_p:.2g}"),
        ("Seed", str(report.seed)),
        ("Rules", parameters_text(vars(report.rules))),
    ]
    found += [("Broken", fault) for fault in facts.faults[:MOST_FAULTS]]
    return [(name, value) for name, value in found if value]
