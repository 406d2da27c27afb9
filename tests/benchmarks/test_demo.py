"""The demo's own policy: the default one, with one more defense ahead."""

from pathlib import Path

from benchmarks.demo.__main__ import policy_with
from guard.policy import load_policy


def test_the_named_defense_is_tried_first_and_nothing_else_changes(tmp_path: Path) -> None:
    plain, own = load_policy(), load_policy(policy_with("neural_polarizer", tmp_path))

    assert [rule.name for rule in own.defenses] == ["neural_polarizer", *(rule.name for rule in plain.defenses)]
    assert {**own.to_dict(), "defenses": 0} == {**plain.to_dict(), "defenses": 0}
