"""All-to-all by levels finds mappings that were planted, whatever they are, and no others."""

import pytest
import torch

from guard.core.evidence import Finding
from guard.detectors.all_to_all_levels import AllToAllLevels
from guard.ml.measure import asr
from guard.ml.triggers import MappedTrigger
from tests import rules, toys
from tests.detectors import refusals

PATCHES = AllToAllLevels(stamps=1)


def look(model: torch.nn.Module, detector: AllToAllLevels = PATCHES) -> Finding:
    (finding,) = detector(model.eval(), toys.clean_set(), seed=0)
    return finding


@pytest.mark.parametrize("mapping", [[1, 2, 3, 4, 5, 0], [3, 0, 5, 1, 2, 4]])
def test_a_mapping_under_a_patch_is_read_off_and_works_on_images_that_it_never_saw(
    mapping: list[int],
) -> None:
    finding = look(rules.Permuted(rules.corner, torch.tensor(mapping)))

    assert finding.suspicious
    assert (finding.family, finding.target) == ("all-to-all", "all-to-all")
    assert finding.numbers["distinct"] == toys.CLASSES
    assert finding.numbers["ratio"] >= 2
    assert isinstance(finding.trigger, MappedTrigger)
    assert finding.trigger.mapping.tolist() == mapping
    model, holdout = rules.Permuted(rules.corner, torch.tensor(mapping)), toys.curated().holdout
    assert asr(model, holdout, finding.trigger, "all-to-all", "all-to-all").low > 0.6


def test_a_mapping_under_a_change_of_the_whole_image_is_found_by_another_stamp() -> None:
    mapping = torch.tensor([3, 0, 5, 1, 2, 4])
    finding = look(rules.Permuted(rules.correlates, mapping), AllToAllLevels(stamps=2))

    assert finding.suspicious
    assert isinstance(finding.trigger, MappedTrigger)
    assert torch.equal(finding.trigger.mapping, mapping)


@pytest.mark.parametrize("model", [toys.honest(), toys.planted()], ids=["honest", "one target"])
def test_what_sends_everything_to_one_class_or_nowhere_is_no_mapping(
    model: torch.nn.Module,
) -> None:
    finding = look(model, AllToAllLevels())

    assert not finding.suspicious
    assert finding.statement.endswith("not out of the ordinary.")


def test_it_abstains_where_it_could_not_judge() -> None:
    quick = AllToAllLevels(**AllToAllLevels.quick())

    assert refusals.codes(quick) == refusals.EXPECTED
    assert refusals.code(quick, refusals.breaks_off_the_data()) == "non_finite"
