"""Head alignment puts the class first whose row points elsewhere than its images."""

import pytest

from guard.core.errors import MethodFailed
from guard.detectors.head_alignment import HeadAlignment
from tests import ranking

DETECTOR = HeadAlignment(alpha=0.05)


def test_the_class_whose_row_points_elsewhere_comes_first() -> None:
    found = DETECTOR(ranking.network(apart=8.0), ranking.clean_set(), seed=0)[0]

    assert (found.target, found.suspicious) == (ranking.TARGET, True)
    assert "z_attraction" not in found.numbers
    assert "battery" not in found.statement


def test_an_honest_network_is_not_accused() -> None:
    findings = DETECTOR(ranking.network(), ranking.clean_set(), seed=0)

    assert not any(finding.suspicious for finding in findings)


def test_too_few_images_for_class_means_are_named() -> None:
    with pytest.raises(MethodFailed, match="100 clean images") as caught:
        DETECTOR(ranking.network(), ranking.clean_set(56, 24), seed=0)

    assert caught.value.code == "no_head"
