"""All-to-all inversion against mappings planted by hand.

And what becomes of its finding behind the detector.
"""

import pytest
import torch

from guard.core.evidence import Evidence, Finding, Outcome
from guard.core.manifest import Manifest
from guard.core.states import Verdict
from guard.detectors.all_to_all import AllToAll
from guard.ml.measure import accuracy, asr
from guard.ml.triggers import MappedTrigger
from guard.policy import Case, DefenseRule, DetectorRule, Policy, decide
from guard.vetting import examine, parent_comparison
from tests import rules, toys
from tests.detectors import refusals


def look(model: torch.nn.Module) -> Finding:
    (finding,) = AllToAll()(model.eval(), toys.clean_set(), seed=0)
    return finding


@pytest.fixture(scope="module")
def cyclic() -> Finding:
    return look(rules.cyclic(rules.corner))


def test_a_shift_by_one_is_read_off_exactly(cyclic: Finding) -> None:
    """papers/detection.md 7.11 (iv)."""
    assert cyclic.suspicious
    assert (cyclic.family, cyclic.target) == ("all-to-all", "all-to-all")
    assert cyclic.numbers["cyclic"] == 1
    assert cyclic.numbers["distinct"] == toys.CLASSES
    assert cyclic.numbers["x2x_asr"] >= 0.8
    assert cyclic.numbers["natural_asr"] <= 0.4
    assert isinstance(cyclic.trigger, MappedTrigger)
    assert cyclic.trigger.mapping.tolist() == [1, 2, 3, 4, 5, 0]


@pytest.mark.threat("B02")
def test_any_mapping_of_a_rule_over_the_whole_image_is_found() -> None:
    mapping = torch.tensor([3, 0, 5, 1, 2, 4])

    finding = look(rules.Permuted(rules.correlates, mapping))

    assert finding.suspicious
    assert isinstance(finding.trigger, MappedTrigger)
    assert torch.equal(finding.trigger.mapping, mapping)
    assert finding.numbers["cyclic"] < 1


@pytest.mark.parametrize(
    "model",
    [toys.honest(), toys.planted(), rules.Ruled(rules.correlates)],
    ids=["honest", "patch to one", "addition to one"],
)
def test_what_sends_everything_to_one_class_or_nowhere_is_no_mapping(
    model: torch.nn.Module,
) -> None:
    finding = look(model)

    assert not finding.suspicious
    assert finding.score < 0.5


def test_it_abstains_where_it_could_not_judge() -> None:
    assert refusals.codes(AllToAll()) == refusals.EXPECTED


def test_numbers_that_break_only_under_the_trigger_are_refused_too() -> None:
    assert (
        refusals.code(AllToAll(windows=4, least=1), refusals.breaks_off_the_data()) == "non_finite"
    )


class Vetted(rules.Permuted):
    """A model as the guard opens it: it knows its manifest."""

    manifest = Manifest(
        architecture="toy",
        num_classes=toys.CLASSES,
        input_size=(1, toys.SIZE, toys.SIZE),
        mean=(0.5,),
        std=(0.5,),
    )


@pytest.fixture(scope="module")
def examined() -> examine.Examined:
    model = Vetted(rules.corner, (torch.arange(toys.CLASSES) + 1) % toys.CLASSES).eval()
    return examine.examine(model, "a" * 64, toys.curated(), {"all_to_all": {}})


def test_the_hold_out_rate_of_a_mapping_is_measured_and_its_trigger_kept(
    examined: examine.Examined,
) -> None:
    finding = examined.evidence[1].findings[0]

    assert finding.asr is not None
    assert (finding.asr.target, finding.asr.trials) == ("all-to-all", 180)
    assert finding.asr.low >= 0.8
    assert finding.asr.natural == finding.numbers["natural_asr"]
    assert finding.trigger_digest in examined.triggers
    assert Evidence.from_dict(examined.evidence[1].to_dict()) == examined.evidence[1]


def test_a_mapping_is_rejected_with_a_repair_on_offer_and_replayed_on_the_child(
    examined: examine.Examined,
) -> None:
    policy = Policy(
        name="p",
        version=1,
        detectors={"all_to_all": DetectorRule()},
        defenses=(DefenseRule(name="fine_tune"),),
    )
    clean = toys.curated()
    case = Case(
        artifact="a" * 64,
        cleanset=clean.facts,
        evidence=examined.evidence,
        accuracy=examined.accuracy,
        versions={"all_to_all": AllToAll.version},
    )

    decision = decide(policy, case)
    (replay,) = parent_comparison.replays_from(examined.evidence, examined.triggers)
    trigger = examine.restore_trigger(replay.data)
    child = asr(
        toys.honest(), clean.holdout, trigger, replay.target, trigger.family, natural=replay.natural
    )

    assert examined.evidence[1].outcome is Outcome.FINDINGS
    assert (decision.verdict, decision.purify) == (Verdict.REJECTED, True)
    assert decision.facts.target == "all-to-all"
    assert child.high <= 0.1
    assert accuracy(toys.honest(), clean.holdout, toys.CLASSES).overall >= 0.9
