"""Fitting on a reference population.

What is written applies again, and what cannot be fitted is refused.
"""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guard.core.digests import canonical_json, sha256
from guard.core.errors import InputError
from guard.core.evidence import Evidence, Outcome
from guard.core.states import Verdict
from guard.policy import decide
from guard.policy.calibration import parse
from guard.policy.features import features
from guard.vetting import calibrate, population
from guard.vetting.examine import accuracy_evidence
from guard.vetting.population import Member, Scanned
from tests.cli.models import clean_set, saved
from tests.policy.population import ACCURACY, CLEANSET, POLICY, calibrated, case, model

PATCHES = {"patch_inversion": {"steps": 4, "natural_steps": 2, "batch": 4}}


def a_population(honest: int = 40, bad: int = 60, seed: int = 0) -> list[Scanned]:
    """Synthetic models; the attacker's own trigger works a little better than the recovered one."""
    rng, found = random.Random(seed), []
    for number in range(honest + bad):
        backdoored = number >= honest
        digest = sha256(f"{seed}/{number}".encode())
        items = model(rng, bad=backdoored, artifact=digest)
        best = max(
            (one.asr.estimate for item in items for one in item.findings if one.asr), default=0.0
        )
        truth = {
            "data": "tens",
            "backdoored": backdoored,
            "attack": f"attack-{number % 6}" if backdoored else None,
            "asr": min(1.0, best + 0.05) if backdoored else None,
        }
        accuracy = accuracy_evidence(digest, CLEANSET, ACCURACY, 0)
        found.append(
            Scanned(
                Member(Path(f"m{number:03}"), truth), digest, "cifar_resnet", (accuracy, *items)
            )
        )
    return found


def test_what_is_fitted_is_one_file_that_applies_to_its_population() -> None:
    document = calibrate.fit(a_population())
    calibration = parse(canonical_json(document))
    rng = random.Random(99)
    bad = [decide(calibrated(calibration), case(*model(rng, bad=True))) for _ in range(100)]

    assert calibrate.fit(a_population()) == document
    assert len(calibration.honest) == 40
    assert calibration.asr_margin is not None
    assert all(decision.facts.calibration == document["digest"] for decision in bad)
    assert sum(decision.verdict is not Verdict.CLEARED for decision in bad) >= 70


def test_the_rankings_of_honest_models_are_kept_and_others_leave_the_file_as_it_was() -> None:
    population = a_population(honest=12, bad=12)
    ranked = [
        replace(item, evidence=tuple(map(with_ranking, item.evidence))) for item in population
    ]

    calibration = parse(canonical_json(calibrate.fit(ranked)))

    assert "honest_rankings" not in calibrate.fit(population)
    assert {name: len(values) for name, values in calibration.rankings.items()} == {"blends": 12}
    assert calibration.ranked("blends", 0.0) == (1 / 13, 12)
    assert calibrate.summary(calibration)["rankings"] == {
        "blends": {"honest": 12, "smallest_p": 1 / 13}
    }


def with_ranking(item: Evidence) -> Evidence:
    """`blends` ranks classes by the p value that it has anyway."""
    if item.method != "blends":
        return item
    findings = tuple(
        replace(one, numbers={**one.numbers, "p_ranking": one.numbers["p_value"]})
        for one in item.findings
    )
    return replace(item, findings=findings)


@pytest.mark.row(19)
def test_the_stated_rate_holds_for_new_honest_models() -> None:
    """Five populations.

    The share of new honest models over the threshold is the stated 10 %, within its error.
    """
    rng, over, seen = random.Random(4), 0, 0
    for seed in range(5):
        calibration = parse(canonical_json(calibrate.fit(a_population(seed=seed))))
        threshold = calibration.threshold(0.1)
        assert threshold is not None
        for _ in range(300):
            over += calibration.log_odds(features(model(rng))) > threshold
            seen += 1

    assert 0.05 <= over / seen <= 0.15


def test_no_model_is_scored_by_a_fit_that_saw_its_attack() -> None:
    document = calibrate.fit(a_population())
    attacks = {f"m{index:03}": f"attack-{index % 6}" for index in range(40, 100)}
    folds: dict[str, set[int]] = {}
    for row in document["population"]["models"]:
        if row["backdoored"]:
            folds.setdefault(attacks[row["name"]], set()).add(row["fold"])

    assert all(len(own) == 1 for own in folds.values())
    assert len({fold for own in folds.values() for fold in own}) > 1


def test_a_method_that_could_not_look_at_a_model_leaves_it_out() -> None:
    scanned = a_population()
    blind = replace(scanned[0].evidence[1], outcome=Outcome.COULD_NOT_LOOK, findings=(), reason="x")
    scanned[0] = replace(
        scanned[0], evidence=(scanned[0].evidence[0], blind, scanned[0].evidence[2])
    )
    document = calibrate.fit(scanned)

    assert document["population"]["left_out"] == ["m000"]
    assert len(document["honest_log_odds"]) == 39


@pytest.mark.parametrize(("honest", "bad", "word"), [(7, 30, "7"), (30, 5, "5")])
def test_too_few_models_are_refused(honest: int, bad: int, word: str) -> None:
    with pytest.raises(InputError, match=f"there are {word}"):
        calibrate.fit(a_population(honest, bad))


def test_scans_by_different_versions_are_not_mixed() -> None:
    scanned = a_population()
    first = scanned[3].evidence
    scanned[3] = replace(scanned[3], evidence=(first[0], replace(first[1], version=2), first[2]))

    with pytest.raises(InputError, match="m003 was scanned by other methods"):
        calibrate.fit(scanned)


def test_the_fitted_weights_cannot_be_turned_round() -> None:
    document = calibrate.fit(a_population())

    assert all(item["weight"] >= 0 for item in document["features"])
    assert document["slope"] >= 0


def a_zoo(folder: Path) -> Path:
    (folder / "cleansets").mkdir(parents=True)
    clean_set(folder / "cleansets" / "stripes.npz", 300)
    for name, bad in (("honest", False), ("bad", True)):
        saved(
            folder / name, steps=60 if bad else 0, backdoored=bad
        )  # one knows nothing: no detector looks at it
        truth: dict[str, Any] = {
            "data": "stripes",
            "backdoored": bad,
            "attack": "patch" if bad else None,
        }
        (folder / name / "truth.json").write_text(json.dumps(truth))
    return folder


def test_a_scan_goes_on_where_it_was_and_starts_again_when_something_changed(
    tmp_path: Path,
) -> None:
    zoo = a_zoo(tmp_path / "zoo")
    chosen = population.members(zoo)
    first = population.scan_all(zoo, chosen, PATCHES)
    files = sorted(zoo.glob("*/scan-*.json"))
    stamps = {path: path.stat().st_mtime_ns for path in files}
    (zoo / "bad" / "scan-patch_inversion.json").write_text(
        "{"
    )  # as a machine that lost power leaves it
    again = population.scan_all(zoo, chosen, PATCHES)
    redone = {path.parent.name for path in files if path.stat().st_mtime_ns != stamps[path]}
    other = population.scan(
        chosen[0],
        population.read_cleanset(zoo / "cleansets" / "stripes.npz"),
        {"patch_inversion": {**PATCHES["patch_inversion"], "steps": 5}},
    )

    assert [path.name for path in files] == [
        "scan-clean_accuracy.json",
        "scan-patch_inversion.json",
    ] * 2
    assert redone == {"bad"}
    plain = [[replace(one, seconds=0.0) for one in item.evidence] for item in (*first, *again)]
    assert plain[:2] == plain[2:]
    assert other.evidence[1].parameters["steps"] == 5
    assert decide(POLICY, case(*other.evidence)).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("truth", ["{", "[]", '{"backdoored": 1, "data": "x"}', '{"data": "x"}'])
def test_a_truth_that_says_nothing_is_refused(tmp_path: Path, truth: str) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "truth.json").write_text(truth)

    with pytest.raises(InputError, match=r"truth\.json"):
        population.members(tmp_path)


def test_an_empty_folder_is_no_zoo(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model below"):
        population.members(tmp_path)
