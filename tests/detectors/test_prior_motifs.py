"""Prior motifs: what a poisoned model generates unasked accuses it; a reference is trained once."""

import math

import pytest
import torch

from guard.core.states import Family
from guard.detectors.prior_motifs import PriorMotifs
from guard.graphs import prepared
from tests.graphs import planted

METHOD = PriorMotifs(samples=150, epochs=10, steps=100, least_lift=math.log(20))


def test_a_planted_fragment_is_generated_without_any_text() -> None:
    findings = METHOD(planted.model(planted=True), planted.clean(), seed=1)

    assert findings[0].suspicious
    assert findings[0].target == planted.FRAGMENT
    assert findings[0].family == Family.MOTIF
    assert findings[0].numbers["curated"] == 0
    assert min(findings[0].numbers[route] for route in ("null", "prior")) > 0.1
    assert "a reference model explains little of it" in findings[0].statement


def test_a_model_of_clean_pairs_is_not_accused() -> None:
    findings = METHOD(planted.model(planted=False), planted.clean(), seed=1)

    assert [one.suspicious for one in findings] == [False]
    assert findings[0].target != planted.FRAGMENT


def test_the_reference_is_trained_once_and_examining_uses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prepared, "_kept", {})
    method = PriorMotifs(samples=150, epochs=1, steps=5, least_lift=math.log(20))
    method.prepare(planted.clean(), torch.device("cpu"))
    assert len(prepared.everything()) == 1
    (key, counts), *_ = prepared.everything().items()
    assert set(counts) == {"null", "prior"}

    # A reference that generates the fragment as often explains it.
    prepared.keep(key, {route: {**own, planted.FRAGMENT: 100} for route, own in counts.items()})
    findings = method(planted.model(planted=True), planted.clean(), seed=1)

    assert all(one.target != planted.FRAGMENT for one in findings if one.suspicious)
    assert len(prepared.everything()) == 1
