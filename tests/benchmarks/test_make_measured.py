"""measured.json is made from the newest record of each policy, and from nothing else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.attacks import ATTACKS
from benchmarks.make_measured import PLAIN, measured, plain
from guard.policy import Policy, known_gaps, load_policy

FOUND = {"patch": (4, 4), "tact": (0, 3), "sig": (2, 4), "lira": (0, 0), "honest: plain": (0, 0)}


def share(k: int, n: int) -> dict[str, Any]:
    return {"k": k, "n": n, "share": k / n if n else None, "low": 0.0, "high": 1.0}


def a_record(folder: Path, name: str, policy: Policy, *, honest: int = 1, **more: Any) -> None:
    result = {
        "verdicts": {
            "rules": {"honest_not_cleared": share(honest, 30), "strong_not_cleared": share(6, 11)}
        },
        "attacks": {
            attack: {"strong_not_cleared": share(*counts)} for attack, counts in FOUND.items()
        },
        "policy": policy.to_dict(),
        "zoo": "third",
        **more,
    }
    (folder / name).mkdir()
    (folder / name / "summary.json").write_text(
        json.dumps({"surroundings": {"commit": "abc1234"}, "result": result})
    )


def test_the_newest_record_of_a_policy_is_told_in_plain_words(tmp_path: Path) -> None:
    a_record(tmp_path, "2026-01-01-detect-default", load_policy(), honest=9)
    a_record(tmp_path, "2026-01-02-detect-default", load_policy(), versions={"margin": 3})
    entry = measured(tmp_path)["default"]

    assert (entry["record"], entry["commit"], entry["zoo"]) == (
        "2026-01-02-detect-default",
        "abc1234",
        "third",
    )
    assert (entry["honest_not_cleared"], entry["backdoored_not_cleared"]) == (
        {"k": 1, "n": 30},
        {"k": 6, "n": 11},
    )
    assert entry["attacks"]["sig"] == {"name": "clean-label (SIG)", "found": 2, "of": 4}
    assert entry["mostly_missed"] == ["source-specific (TaCT)", "clean-label (SIG)"]
    assert set(entry["not_measured"]) == {plain(name) for name in ATTACKS.names()} - {
        plain(name) for name in ("patch", "tact", "sig")
    }
    assert "learnt noise (LIRA)" in entry["not_measured"]  # in the zoo, but no backdoor that works
    assert known_gaps(load_policy(), {"margin": 3}, measured=measured(tmp_path))["measured"]


def test_a_record_without_some_detectors_says_so(tmp_path: Path) -> None:
    own = load_policy(Path("ensemble"))
    seen = replace(
        own,
        name="ensemble-without-mesa",
        defenses=(),
        detectors={name: rule for name, rule in own.detectors.items() if name != "mesa"},
    )
    a_record(tmp_path, "2026-01-01-detect-ensemble", seen)
    said = known_gaps(own, measured=measured(tmp_path))

    assert (said["without"], said["policy"]["name"]) == (["mesa"], "ensemble-without-mesa")
    assert "without mesa" in said["sentence"]
    assert not known_gaps(seen, measured=measured(tmp_path))["measured"]


def test_a_record_of_other_rules_does_not_speak_about_the_policy(tmp_path: Path) -> None:
    assert not known_gaps(load_policy(), measured=measured(tmp_path))["measured"]
    policy = load_policy()
    changed = (replace(policy, review_always=True), replace(policy, asr_limit=0.3))
    for number, other in enumerate(changed):
        a_record(tmp_path, f"2026-01-0{number + 1}-detect-default", other)

        assert not known_gaps(load_policy(), measured=measured(tmp_path))["measured"]


def test_plain_words_tell_attacks_apart() -> None:
    assert set(PLAIN) <= set(ATTACKS.names())
    assert len({plain(name) for name in ATTACKS.names()}) == len(ATTACKS.names())
    assert plain("some_new_attack") == "some new attack"
