"""Known gaps.

Said of the rules that were measured, under whatever name, and plainly unknown of all others.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guard.policy import CombinationRule, DefenseRule, DetectorRule, Policy, known_gaps, load_policy
from guard.policy.known_gaps import detection_digest
from guard.policy.load import packaged

POLICY = Policy(
    name="one", version=3, detectors={"a": DetectorRule(), "b": DetectorRule(required=False)}
)
ENTRY: dict[str, Any] = {
    "record": "2026-01-01-detect-one",
    "commit": "abc1234",
    "zoo": "third",
    "policy": {"name": "one", "version": 3},
    "without": [],
    "rules": detection_digest(POLICY),
    "versions": {"a": 2},
    "honest_not_cleared": {"k": 3, "n": 20},
    "backdoored_not_cleared": {"k": 5, "n": 9},
    "attacks": {
        "patch": {"name": "patch", "found": 5, "of": 5},
        "wanet": {"name": "warp", "found": 0, "of": 4},
    },
    "mostly_missed": ["warp"],
    "not_measured": ["clean-label (SIG)"],
}


def gaps(
    policy: Policy = POLICY, versions: dict[str, int] | None = None, **fields: Any
) -> dict[str, Any]:
    return known_gaps(policy, versions, measured={"one": {**ENTRY, **fields}})


def test_what_was_measured_is_told_with_its_numbers() -> None:
    said = gaps()

    assert said["measured"]
    assert {
        key: said[key] for key in ("record", "commit", "mostly_missed", "not_measured", "changed")
    } == {
        "record": "2026-01-01-detect-one",
        "commit": "abc1234",
        "mostly_missed": ["warp"],
        "not_measured": ["clean-label (SIG)"],
        "changed": [],
    }
    for part in (
        "policy one version 3",
        "record 2026-01-01-detect-one",
        "mostly missed are (found/tried) warp 0/4;",
        "not measured: clean-label (SIG);",
        "3/20 honest",
        "5/9 backdoored",
    ):
        assert part in said["sentence"], part


@pytest.mark.parametrize(
    "policy",
    [
        replace(POLICY, asr_limit=0.11),
        replace(POLICY, review_always=True),
        replace(POLICY, combination=CombinationRule(class_level=0.02)),
        replace(POLICY, detectors={**POLICY.detectors, "c": DetectorRule(required=False)}),
        replace(
            POLICY,
            detectors={"a": DetectorRule(params={"steps": 5}), "b": DetectorRule(required=False)},
        ),
        replace(POLICY, detectors={"a": DetectorRule()}),
    ],
    ids=["limit", "review", "levels", "more", "parameters", "fewer"],
)
def test_of_a_policy_with_a_changed_rule_nothing_is_known(policy: Policy) -> None:
    said = gaps(policy)

    assert set(said) == {"measured", "sentence"}
    assert not said["measured"]
    assert said["sentence"].endswith("was not measured: how often this policy is right is unknown.")


def test_another_name_for_the_same_rules_changes_nothing() -> None:
    said = gaps(replace(POLICY, name="mine", version=1))

    assert said["measured"]
    assert "policy mine version 1, as measured" in said["sentence"]


def test_how_a_model_is_repaired_does_not_change_what_is_missed() -> None:
    said = gaps(replace(POLICY, version=4, lifetime_days=1.0, defenses=(DefenseRule(name="sau"),)))

    assert said["measured"]
    assert "policy one version 4" in said["sentence"]
    assert said["policy"]["version"] == 3  # the one that was measured


def test_a_method_that_has_changed_since_is_named() -> None:
    said = gaps(versions={"a": 3, "b": 1, "clean_accuracy": 1})

    assert said["changed"] == ["a"]
    assert "changed since: a)" in said["sentence"]
    assert gaps(versions={"a": 2})["changed"] == []


def test_detectors_that_were_left_out_of_the_measurement_are_named() -> None:
    assert "as measured without b (record" in gaps(without=["b"])["sentence"]


@pytest.mark.parametrize("name", packaged())
def test_every_packaged_policy_has_a_word_that_can_be_signed(name: str) -> None:
    said = known_gaps(load_policy(Path(name)))

    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert f"policy {name} version" in said["sentence"]
    assert len(said["sentence"]) < 2000  # what `printable` would cut
