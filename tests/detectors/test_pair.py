"""The pair puts the class first that both views single out, and asks nothing of few classes."""

from collections import OrderedDict

import pytest

from guard.core.evidence import Finding
from guard.detectors.pair import Pair
from guard.ml.search import class_ranking, natural_views
from guard.ml.search.battery import commitment
from guard.ml.search.natural_views import Views
from tests import ranking, toys

QUICK = Pair(**{**Pair.quick(), "alpha": 0.01})


def first(detector: Pair, *, absorbs: float, apart: float) -> Finding:
    return detector(ranking.network(absorbs, apart), ranking.clean_set(), seed=0)[0]


def test_the_class_that_absorbs_changes_and_is_misaligned_comes_first_and_is_suspicious() -> None:
    found = first(QUICK, absorbs=9.0, apart=4.0)

    assert (found.target, found.suspicious) == (ranking.TARGET, True)
    assert found.numbers["z_alignment"] > 1
    assert found.numbers["z_attraction"] > 1
    assert found.numbers["p_ranking"] <= 0.01
    assert "less aligned" in found.statement
    assert f"(battery {commitment()})" in found.statement


def test_an_honest_network_is_ranked_and_not_accused() -> None:
    findings = QUICK(ranking.network(), ranking.clean_set(), seed=0)

    assert [finding.numbers["place"] for finding in findings] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert sorted(str(finding.target) for finding in findings) == [*"01234567"]
    assert not any(finding.suspicious for finding in findings)


def test_no_number_has_a_name_that_a_policy_combines() -> None:
    numbers = first(QUICK, absorbs=9.0, apart=4.0).numbers

    assert not {"p_value", "p_class", "fold", "ratio", "excess", "z"} & numbers.keys()


def test_with_few_classes_nothing_is_asked() -> None:
    findings = QUICK(toys.planted(), toys.clean_set(), seed=0)

    assert {finding.score for finding in findings} == {0.0}
    assert {finding.numbers["informative"] for finding in findings} == {0.0}
    assert "no class can be told from its siblings" in findings[0].statement


def test_what_honest_networks_show_is_subtracted(monkeypatch: pytest.MonkeyPatch) -> None:
    much = tuple(100.0 if row == ranking.TARGET else 0.0 for row in range(ranking.CLASSES))
    monkeypatch.setattr(class_ranking, "natural_views", lambda *_: Views(much, much))
    found = first(QUICK, absorbs=9.0, apart=4.0)

    assert found.target != ranking.TARGET
    assert found.numbers["referenced"] == 1.0


def test_where_no_head_is_found_the_attractor_alone_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_ranking, "head_alignment", lambda *_: None)
    found = first(QUICK, absorbs=9.0, apart=0.0)

    assert found.target == ranking.TARGET
    assert "z_alignment" not in found.numbers


def test_references_are_prepared_with_the_clean_set(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []

    def measured(_clean: object, *given: object) -> None:
        made.append(tuple(one for one in given if isinstance(one, int)))

    monkeypatch.setattr(natural_views, "_known", OrderedDict())
    monkeypatch.setattr(natural_views, "_measured", measured)
    detector = Pair(batteries=1, references=1, rounds=2)
    network = ranking.network()
    detector.prepare(ranking.clean_set(), next(network.head.parameters()).device)
    detector(network, ranking.clean_set(), seed=0)

    assert made == [(1, 2, 1)]
