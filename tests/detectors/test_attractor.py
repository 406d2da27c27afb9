"""The attractor puts the class first that absorbs changed images, whatever its row of the head."""

from guard.detectors.attractor import Attractor
from guard.ml.search import natural_views
from tests import ranking

QUICK = Attractor(**{**Attractor.quick(), "alpha": 0.01})


def test_the_class_that_absorbs_changes_is_suspicious() -> None:
    found = QUICK(ranking.network(absorbs=9.0), ranking.clean_set(), seed=0)[0]

    assert (found.target, found.suspicious) == (ranking.TARGET, True)
    assert "z_alignment" not in found.numbers


def test_a_row_that_points_elsewhere_is_nothing_to_it() -> None:
    findings = QUICK(ranking.network(apart=1.0), ranking.clean_set(), seed=0)

    assert not any(finding.suspicious for finding in findings)


def test_it_prepares_its_references() -> None:
    detector = Attractor(batteries=1, references=1, rounds=2)
    natural_views._known.clear()
    network = ranking.network()
    detector.prepare(ranking.clean_set(), next(network.head.parameters()).device)

    assert len(natural_views._known) == 1
    natural_views._known.clear()
