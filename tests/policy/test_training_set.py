"""What suspects mean for a model: rejected, for a person, or a report about the data."""

from dataclasses import replace
from typing import Any

from guard.core.evidence import AsrEstimate
from guard.core.sift import (
    LabelMap,
    Poisoning,
    Remark,
    Share,
    SiftedClass,
    SiftRules,
    SiftVerdict,
    SuspectTrigger,
)
from guard.policy.training_set import Judgement, judge_sift

RULES = SiftRules()


def share(estimate: float, spread: float = 0.05) -> Share:
    return Share(
        successes=round(100 * estimate),
        trials=100,
        estimate=estimate,
        low=max(0.0, estimate - spread),
        high=min(1.0, estimate + spread),
    )


def trigger(estimate: float, siblings: float | None) -> SuspectTrigger:
    asr = AsrEstimate(
        target=3,
        family="additive",
        successes=round(100 * estimate),
        trials=100,
        estimate=estimate,
        low=estimate - 0.05,
        high=estimate + 0.05,
    )
    return SuspectTrigger(digest="0" * 64, family="additive", asr=asr, siblings=siblings)


def standing(**changes: Any) -> SiftedClass:
    facts: dict[str, Any] = {
        "label": 3,
        "name": "dress",
        "images": 450,
        "accused": 159,
        "resolved": 6,
        "stands_out": True,
        "poisoning": Poisoning.DIRTY_LABEL,
        "obedience": share(0.5),
        "sources": (16,) * 10,
        "source_share": 0.13,
    }
    return SiftedClass(**{**facts, **changes})


def judged(one: SiftedClass, found: LabelMap | None = None) -> Judgement:
    quiet = replace(standing(), label=0, name="shirt", stands_out=False, accused=0)
    return judge_sift([quiet, one], found, RULES)


def test_without_a_class_that_stands_out_nothing_is_said_and_nothing_cleared() -> None:
    found = judge_sift([replace(standing(), stands_out=False)], None, RULES)

    assert found.verdict is SiftVerdict.NOTHING
    assert "clears nothing" in found.reasons[0]
    assert found.remarks == ()


def test_obeyed_suspects_of_many_classes_are_poison() -> None:
    found = judged(standing())

    assert found.verdict is SiftVerdict.POISONED
    assert "159 images labelled 'dress'" in found.reasons[0]


def test_obeyed_suspects_of_one_class_are_for_a_person() -> None:
    found = judged(standing(source_share=0.54))

    assert found.verdict is SiftVerdict.REVIEW
    assert found.classes[1].remark is Remark.LABEL_ERRORS


def test_suspects_of_one_class_are_poison_where_their_trigger_works_as_no_siblings_does() -> None:
    """A pattern over the whole image may look like one class to the reference."""
    proven = standing(source_share=0.65, trigger=trigger(0.8, siblings=0.1))
    unproven = standing(source_share=0.65, trigger=trigger(0.8, siblings=0.79))

    assert judged(proven).verdict is SiftVerdict.POISONED
    assert judged(proven).classes[1].remark is None
    assert judged(unproven).verdict is SiftVerdict.REVIEW


def test_a_trigger_that_works_far_better_than_any_siblings_is_poison_whoever_obeys_what() -> None:
    """Label errors leave no trigger that works on other images; poison does."""
    unsure = {"obedience": share(0.2)}
    ignored = {"obedience": share(0.02)}
    unknown: dict[str, Any] = {"obedience": None, "sources": (), "source_share": None}
    for facts in (unsure, ignored, unknown):
        for changes in (facts, {**facts, "source_share": 0.54}):
            proven = standing(**changes, trigger=trigger(0.8, siblings=0.1))
            likeness = standing(**changes, trigger=trigger(0.3, siblings=0.2))
            assert judged(proven).verdict is SiftVerdict.POISONED
            assert "sends 80% of other images there" in judged(proven).reasons[0]
            assert judged(proven).remarks == ()
            assert judged(likeness) == replace(
                judged(replace(likeness, trigger=None)),
                classes=judged(likeness).classes,
                parts=judged(likeness).parts,
            )


def test_in_a_model_of_two_classes_every_source_is_the_only_one() -> None:
    assert judged(standing(sources=(9, 1), source_share=0.3)).verdict is SiftVerdict.REVIEW


def test_suspects_that_the_model_ignores_are_a_report_about_the_data() -> None:
    poison = judged(standing(obedience=share(0.02)))
    errors = judged(standing(obedience=share(0.02), source_share=0.54))

    assert poison.verdict is errors.verdict is SiftVerdict.NOTHING
    assert poison.classes[1].remark is Remark.UNLEARNT_POISON
    assert errors.classes[1].remark is Remark.LABEL_ERRORS
    assert "did not learn" in poison.remarks[0]


def test_an_interval_across_the_limit_is_for_a_person() -> None:
    assert judged(standing(obedience=share(0.2))).verdict is SiftVerdict.REVIEW


def test_suspects_whose_classes_nobody_knows_are_for_a_person() -> None:
    unknown = standing(obedience=None, sources=(), source_share=None)

    assert judged(unknown).verdict is SiftVerdict.REVIEW


def test_clean_label_suspects_are_judged_by_their_trigger_against_the_siblings() -> None:
    def verdict(found: SuspectTrigger | None) -> SiftVerdict:
        return judged(standing(poisoning=Poisoning.CLEAN_LABEL, trigger=found)).verdict

    assert verdict(trigger(0.45, siblings=0.2)) is SiftVerdict.POISONED
    assert verdict(trigger(0.45, siblings=0.42)) is SiftVerdict.REVIEW
    assert verdict(trigger(0.45, siblings=0.32)) is SiftVerdict.REVIEW
    assert verdict(trigger(0.2, siblings=0.0)) is SiftVerdict.REVIEW
    assert verdict(trigger(0.45, siblings=None)) is SiftVerdict.REVIEW
    assert verdict(None) is SiftVerdict.REVIEW


def test_a_map_is_poison_where_it_is_obeyed_and_not_made_of_swaps() -> None:
    whole = LabelMap(
        mapping=(1, 2, 3, 4, 0), images=120, share=0.9, mutual=0.0, obedience=share(0.7)
    )
    quiet = replace(standing(), stands_out=False)

    def verdict(**changes: Any) -> Judgement:
        return judge_sift([quiet], replace(whole, **changes), RULES)

    assert verdict().verdict is SiftVerdict.POISONED
    assert verdict(mutual=1.0).verdict is SiftVerdict.REVIEW
    assert verdict(obedience=share(0.2)).verdict is SiftVerdict.REVIEW
    ignored = verdict(obedience=share(0.02))
    assert ignored.verdict is SiftVerdict.NOTHING
    assert "did not learn" in ignored.remarks[0]
    assert "label errors" in verdict(obedience=share(0.02), mutual=1.0).remarks[0]


def test_the_worst_of_several_findings_decides_and_only_its_reasons_are_given() -> None:
    bad, doubtful = standing(), standing(label=5, name="bag", source_share=0.6)

    found = judge_sift([bad, doubtful], None, RULES)

    assert found.verdict is SiftVerdict.POISONED
    assert len(found.reasons) == 1
    assert [one.remark for one in found.classes] == [None, Remark.LABEL_ERRORS]
