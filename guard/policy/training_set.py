"""What the suspects of a training set mean for the model that learnt from it: pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from guard.core.sift import (
    LabelMap,
    Poisoning,
    Remark,
    SiftedClass,
    SiftRules,
    SiftVerdict,
    SuspectTrigger,
)
from guard.policy.rules import TrainingSetRule

#: Share of mapped classes that are swapped in pairs, from which on natural confusion explains a
#: map as well as an attack does.
MUTUAL = 0.5
#: Classes of a model, from which on a poisoning has enough source classes to be known by them.
LEAST_CLASSES = 4


def sift_rules(rule: TrainingSetRule) -> SiftRules:
    """The rules of a sift under a policy."""
    return SiftRules(max_fdr=rule.max_fdr, min_images=rule.min_images)


@dataclass(frozen=True)
class _Part:
    verdict: SiftVerdict
    sentence: str
    remark: Remark | None = None


@dataclass(frozen=True)
class Judgement:
    """A verdict with its reasons, the classes with their remarks, and the remarks as sentences.

    `parts` holds what each class that stands out, and the label map (None), adds to the verdict.
    """

    verdict: SiftVerdict
    reasons: tuple[str, ...]
    classes: tuple[SiftedClass, ...]
    remarks: tuple[str, ...]
    parts: tuple[tuple[SiftedClass | None, _Part], ...] = ()


def judge_sift(
    classes: Sequence[SiftedClass], label_map: LabelMap | None, rules: SiftRules
) -> Judgement:
    """Decide by the classes that stand out and the label map, if there is one.

    Poisoned: the model obeys the suspects of a class, and they come from many classes; or the
    trigger estimated from them works on other images, and far better than that of any sibling,
    whatever else is known of them; or the model obeys a map of most classes. Other suspects that
    the model does not obey are a report about the data. Whatever lies between is for a person.
    """
    parts: list[tuple[SiftedClass | None, _Part]] = []
    for one in classes:
        if one.stands_out:
            clean = one.poisoning is Poisoning.CLEAN_LABEL
            parts.append((one, (_clean_label if clean else _dirty_label)(one, rules)))
    if label_map is not None:
        parts.append((None, _mapped(label_map, rules)))
    remarks = {one.label: part.remark for one, part in parts if one is not None}
    verdicts = [part.verdict for _, part in parts]
    if SiftVerdict.POISONED in verdicts:
        verdict = SiftVerdict.POISONED
    elif SiftVerdict.REVIEW in verdicts:
        verdict = SiftVerdict.REVIEW
    else:
        verdict = SiftVerdict.NOTHING
    reasons = [part.sentence for _, part in parts if part.verdict is verdict]
    return Judgement(
        verdict,
        tuple(reasons) or ("No class of the training set stands out; that clears nothing.",),
        tuple(replace(one, remark=remarks.get(one.label)) for one in classes),
        tuple(part.sentence for _, part in parts if part.remark is not None),
        tuple(parts),
    )


def _dirty_label(one: SiftedClass, rules: SiftRules) -> _Part:
    begin = f"{one.accused} images labelled {one.name!r} look like other classes"
    obedience, share = one.obedience, one.source_share
    if one.trigger is not None and _proven(one.trigger, rules):
        # What they carry works on images that no suspect was made of: no label error does that.
        return _Part(SiftVerdict.POISONED, f"{begin}, and {_works(one.trigger)}.")
    if obedience is None or share is None:
        return _Part(SiftVerdict.REVIEW, f"{begin}; whether the model obeys them is not known.")
    obeyed = f"the model obeys {obedience.estimate:.0%} of them"
    one_source = share >= rules.max_source_share
    if obedience.high <= rules.max_obedience:
        remark = Remark.LABEL_ERRORS if one_source else Remark.UNLEARNT_POISON
        return _Part(SiftVerdict.NOTHING, f"{begin}, but {obeyed}: {remark}.", remark)
    if obedience.low <= rules.max_obedience:
        return _Part(SiftVerdict.REVIEW, f"{begin}, and {obeyed}, too few to be sure of.")
    if one_source or len(one.sources) < LEAST_CLASSES:
        return _Part(
            SiftVerdict.REVIEW,
            f"{begin}, and {obeyed}, but {share:.0%} come from one class: label errors explain "
            "that as well as an attack on one class does.",
            Remark.LABEL_ERRORS if one_source else None,
        )
    return _Part(SiftVerdict.POISONED, f"{begin}, from many of them, and {obeyed}.")


def _clean_label(one: SiftedClass, rules: SiftRules) -> _Part:
    begin = f"{one.accused} images labelled {one.name!r} are unlike clean images of that class"
    if one.trigger is None or one.trigger.siblings is None:
        return _Part(SiftVerdict.REVIEW, f"{begin}; no trigger could be estimated from them.")
    works = _works(one.trigger)
    if _proven(one.trigger, rules):
        return _Part(SiftVerdict.POISONED, f"{begin}, and {works}.")
    return _Part(SiftVerdict.REVIEW, f"{begin}, and {works}: that proves nothing.")


def _proven(trigger: SuspectTrigger, rules: SiftRules) -> bool:
    """Whether a trigger works, and far better than the same estimate for any sibling class."""
    return trigger.siblings is not None and trigger.works(rules)


def _works(trigger: SuspectTrigger) -> str:
    return (
        f"a trigger estimated from them sends {trigger.asr.estimate:.0%} of other images there, a "
        f"sibling's at most {trigger.siblings or 0.0:.0%}"
    )


def _mapped(found: LabelMap, rules: SiftRules) -> _Part:
    moved = sum(label >= 0 for label in found.mapping)
    begin = (
        f"{found.images} images carry the label that one map gives their class ({moved} classes)"
    )
    obeyed = f"the model obeys {found.obedience.estimate:.0%} of them"
    if found.obedience.high <= rules.max_obedience:
        remark = Remark.UNLEARNT_POISON if found.mutual < MUTUAL else Remark.LABEL_ERRORS
        return _Part(SiftVerdict.NOTHING, f"{begin}, but {obeyed}: {remark}.", remark)
    if found.obedience.low <= rules.max_obedience or found.mutual >= MUTUAL:
        return _Part(
            SiftVerdict.REVIEW,
            f"{begin}, and {obeyed}; too few, or classes that are swapped in pairs as those that "
            "are hard to tell apart are.",
        )
    return _Part(SiftVerdict.POISONED, f"{begin}, and {obeyed}: an all-to-all poisoning.")
