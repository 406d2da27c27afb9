"""Policy files: the packaged one loads, everything doubtful is refused by name."""

import inspect
import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guard.core.errors import PolicyError
from guard.core.modality import Modality
from guard.core.states import GateMode, Verdict
from guard.defenses import DEFENSES
from guard.detectors import DETECTORS
from guard.policy import Policy, load, load_policy
from guard.policy.known_gaps import detection_digest
from guard.policy.load import packaged, policy_from
from guard.policy.rules import GraphRule, ProofRule, RepairRule

LEAST: dict[str, Any] = {"policy": {"name": "p"}, "detectors": {"patch_inversion": {}}}


def test_the_packaged_policy_requires_a_detector_and_limits_asr() -> None:
    policy = load_policy()

    assert policy.name == "default"
    assert policy.detectors["patch_inversion"].required
    assert policy.asr_limit == 0.10
    assert [(rule.name, rule.after) for rule in policy.defenses] == [
        ("shared_distillation", ""),
        ("patch_unlearning", ""),
        ("distilled_polarizer", "shared_distillation"),
        ("shared_distillation", "shared_distillation"),
        ("distilled_polarizer", ""),
        ("relabelling", ""),
        ("d_br", ""),
    ]
    assert [rule.name for rule in policy.defenses if rule.informed] == ["relabelling", "d_br"]
    assert policy.lifetime_seconds == 30 * 86400
    assert policy.natural == "held"


def test_packaged_policies_are_known_by_name_and_use_only_what_is_on_the_shelves() -> None:
    assert packaged() == ["copies", "default", "ensemble", "strict", "text-to-graph"]
    ensemble = load_policy(Path("ensemble"))

    assert ensemble.name == "ensemble"
    assert set(ensemble.detectors) <= set(DETECTORS.names())
    assert {rule.name for rule in ensemble.defenses} <= set(DEFENSES.names())
    assert set(load_policy().detectors) <= set(ensemble.detectors)


def test_the_policy_for_text_to_graph_models_names_all_methods_for_them() -> None:
    policy = load_policy(Path("text-to-graph"))

    assert policy.modality is Modality.GRAPHS
    assert sorted(policy.detectors) == DETECTORS.of(Modality.GRAPHS)
    assert sorted(rule.name for rule in policy.defenses) == DEFENSES.of(Modality.GRAPHS)
    assert all(rule.required for rule in policy.detectors.values())
    assert policy.graphs == GraphRule()


def test_the_strict_policy_is_the_default_one_with_a_narrower_proof_that_serves_only_copies() -> (
    None
):
    default, strict = load_policy(), load_policy(Path("strict"))

    assert default.proof == ProofRule(max_resampled=0.10, max_woken=0.10, max_lead=0.50)
    assert default.proof == load_policy(Path("ensemble")).proof
    assert strict.proof == replace(default.proof, max_lead=0.30)
    assert strict.repair == RepairRule(when="always")
    blind = [rule.name for rule in strict.defenses if rule.blind]
    assert blind == ["fresh_student", "shared_distillation"]
    known = [rule for rule in strict.defenses if not rule.blind]
    assert [rule for rule in known if rule.name != "fresh_student"] == list(default.defenses)
    assert strict.accuracy == replace(default.accuracy, max_drop=0.03, max_class_drop=0.15)
    assert (
        replace(
            strict,
            name=default.name,
            version=default.version,
            accuracy=default.accuracy,
            proof=default.proof,
            repair=default.repair,
            defenses=default.defenses,
        )
        == default
    )


def test_the_policy_of_copies_is_the_default_one_that_serves_copies_where_they_pass() -> None:
    default, strict, copies = (load_policy(Path(name)) for name in ("default", "strict", "copies"))

    assert copies.repair == RepairRule(when="always", otherwise="served")
    assert copies.accuracy == strict.accuracy
    assert [rule.name for rule in copies.defenses if rule.blind] == ["fresh_student"] * 2
    known = [rule for rule in copies.defenses if not rule.blind]
    assert [known[0].name, *known[1:]] == ["fresh_student", *default.defenses]
    assert (
        replace(
            copies,
            name=default.name,
            version=default.version,
            accuracy=default.accuracy,
            repair=default.repair,
            defenses=default.defenses,
        )
        == default
    )


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("""
        [policy]
        name = "mine"
        version = 7
        lifetime_days = 0.5
        [detectors.a]
        params = {steps = 3, wide = true, rate = 0.1, kind = "x"}
        [detectors.b]
        required = false
        [asr]
        limit = 0.2
        [natural]
        action = "rejected"
        [review]
        always = true
        [[purify.defenses]]
        name = "sau"
        params = {epochs = 2}
    """)
    policy = load_policy(path)

    assert (policy.name, policy.version, policy.lifetime_seconds) == ("mine", 7, 43200)
    assert policy.detectors["a"].params == {"steps": 3, "wide": True, "rate": 0.1, "kind": "x"}
    assert (policy.detectors["a"].required, policy.detectors["b"].required) == (True, False)
    assert (policy.asr_limit, policy.natural, policy.review_always) == (0.2, "rejected", True)
    assert policy.defenses[0].params == {"epochs": 2}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"detectors": {}}, "requires no detector"),
        ({"detectors": {"a": {"required": False}}}, "requires no detector"),
        ({"detectors": []}, "detectors"),
        ({"detectors": {"a": 1}}, "detectors.a"),
        ({"detectors": {"a": {"requird": True}}}, "detectors.a.requird"),
        ({"detectors": {"a": {"required": "yes"}}}, "detectors.a.required"),
        ({"detectors": {"a": {"params": {"x": [1]}}}}, "detectors.a.params"),
        ({"policy": {}}, "policy.name"),
        ({"policy": {"name": ""}}, "policy.name"),
        ({"policy": {"name": "p", "lifetime_days": 0}}, "lifetime_days"),
        ({"policy": {"name": "p", "lifetime_days": float("inf")}}, "lifetime_days"),
        ({"polcy": {}}, "polcy"),
        ({"asr": {"limit": float("nan")}}, "asr.limit"),
        ({"asr": {"limit": 1.5}}, "asr.limit"),
        ({"asr": {"limit": True}}, "asr.limit"),
        ({"asr": {"limit": "0.1"}}, "asr.limit"),
        ({"asr": {"limits": 0.1}}, "asr.limits"),
        ({"accuracy": {"max_drop": -0.1}}, "accuracy.max_drop"),
        ({"accuracy": {"min_times_chance": 0}}, "min_times_chance"),
        ({"cleanset": {"min_per_class": 0}}, "min_per_class"),
        ({"cleanset": {"min_per_class": 1.5}}, "min_per_class"),
        ({"natural": {"action": "ignored"}}, "natural.action"),
        ({"review": {"always": 1}}, "review.always"),
        ({"purify": {"defenses": "sau"}}, "purify.defenses"),
        ({"purify": {"defenses": ["sau"]}}, "purify.defenses"),
        ({"purify": {"defenses": [{"params": {}}]}}, "name"),
        ({"purify": {"defenses": [{"name": "a", "after": ""}]}}, "purify.defenses.after"),
        (
            {"purify": {"defenses": [{"name": "a", "after": "a"}]}},
            "'a' continues from 'a', which is not listed before",
        ),
        (
            {"purify": {"defenses": [{"name": "a", "after": "b"}, {"name": "b"}]}},
            "purify.defenses.after: 'a'",
        ),
        ({"purify": {"defense": []}}, "purify.defense"),
    ],
)
def test_a_mistake_is_refused_by_its_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(PolicyError, match=named.replace(".", r"\.")):
        policy_from({**LEAST, **change})


def test_a_file_that_cannot_be_read_or_is_no_toml_is_our_own_error(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    for data in (b"[policy", b"\xff\xfe", b"a = 1\na = 2"):
        bad.write_bytes(data)
        with pytest.raises(PolicyError, match="not valid TOML"):
            load_policy(bad)
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(PolicyError, match="cannot be read"):
            load_policy(path)


@pytest.mark.row(26)
def test_the_digest_names_every_rule_and_nothing_else(tmp_path: Path) -> None:
    base = policy_from(LEAST)
    changes: list[dict[str, Any]] = [
        {"policy": {"name": "q"}},
        {"policy": {"name": "p", "version": 2}},
        {"asr": {"limit": 0.2}},
        {"detectors": {"patch_inversion": {"params": {"steps": 1}}}},
        {"accuracy": {"max_drop": 0.5}},
        {"cleanset": {"min_holdout": 5}},
        {"natural": {"action": "rejected"}},
        {"review": {"always": True}},
        {"purify": {"defenses": [{"name": "sau"}]}},
        {"purify": {"defenses": [{"name": "sau"}, {"name": "x"}]}},
        {"purify": {"defenses": [{"name": "x"}, {"name": "sau"}]}},
        {"purify": {"defenses": [{"name": "x"}, {"name": "sau", "after": "x"}]}},
    ]
    digests = [policy_from({**LEAST, **change}).digest for change in changes]

    assert len({base.digest, *digests}) == len(changes) + 1
    assert policy_from({**LEAST, "asr": {"limit": 0.1}, "natural": {}}).digest == base.digest
    assert load_policy().digest == load_policy().digest


def test_a_training_set_has_rules_and_a_policy_without_them_keeps_its_digest() -> None:
    plain = policy_from(LEAST)
    rules = {"required": True, "max_fdr": 0.05, "min_images": 30, "action": "held"}
    policy = policy_from({**LEAST, "training_set": rules})

    assert policy.to_dict()["training_set"] == rules
    assert Policy.from_dict(policy.to_dict()) == policy
    assert policy_from({**LEAST, "training_set": {}}).digest == plain.digest
    assert "training_set" not in plain.to_dict()


def test_a_time_budget_is_a_rule_and_a_policy_without_one_keeps_its_digest() -> None:
    plain = policy_from(LEAST)
    policy = policy_from({**LEAST, "time": {"budget": 90}})

    assert (policy.time_budget, plain.time_budget) == (90.0, None)
    assert Policy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
    assert policy.digest != plain.digest
    assert "time_budget" not in plain.to_dict()
    for budget in (0, -1, 1e9, True, "1 h"):
        with pytest.raises(PolicyError, match=r"time\.budget"):
            policy_from({**LEAST, "time": {"budget": budget}})


def test_a_rule_for_retraining_is_kept_and_is_no_part_of_the_digest() -> None:
    plain = policy_from(LEAST)
    rules = {"methods": ["sifted"], "budget_seconds": 60.0, "max_open": 2}
    policy = policy_from({**LEAST, "retrain": rules})

    assert plain.retrain.methods == ()
    assert json.loads(json.dumps(policy.to_dict()))["retrain"] == rules
    assert Policy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
    assert policy.digest == plain.digest
    assert detection_digest(policy) == detection_digest(plain)
    assert "retrain" not in plain.to_dict()


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ({"methods": "sifted"}, "retrain.methods"),
        ({"methods": [1]}, "retrain.methods"),
        ({"budget_seconds": 0}, "retrain.budget_seconds"),
        ({"budget_seconds": 1e9}, "retrain.budget_seconds"),
        ({"max_open": 0}, "retrain.max_open"),
        ({"forced": True}, "retrain.forced"),
    ],
)
def test_a_doubtful_rule_for_retraining_is_refused(rules: dict[str, Any], named: str) -> None:
    with pytest.raises(PolicyError, match=named):
        policy_from({**LEAST, "retrain": rules})


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ({"action": "cleared"}, "training_set.action"),
        ({"max_fdr": 0.9}, "training_set.max_fdr"),
        ({"min_images": 0}, "training_set.min_images"),
        ({"required": 1}, "training_set.required"),
        ({"forced": True}, "training_set.forced"),
    ],
)
def test_a_doubtful_rule_about_training_sets_is_refused(rules: dict[str, Any], named: str) -> None:
    with pytest.raises(PolicyError, match=named):
        policy_from({**LEAST, "training_set": rules})


def test_an_informed_defense_says_so_and_only_another_one_continues_from_it() -> None:
    first = {"name": "x", "informed": True}
    chain = [first, {"name": "y", "after": "x", "informed": True}]
    policy = policy_from({**LEAST, "purify": {"defenses": chain}})

    assert [rule["informed"] for rule in policy.to_dict()["defenses"]] == [True, True]
    assert Policy.from_dict(policy.to_dict()) == policy
    with pytest.raises(PolicyError, match="with the same `informed`"):
        policy_from({**LEAST, "purify": {"defenses": [first, {"name": "y", "after": "x"}]}})


def test_a_defense_may_go_on_after_an_earlier_one_and_only_then_says_so() -> None:
    plain = [{"name": "x"}, {"name": "sau", "params": {"rounds": 3}}]
    policy = policy_from({**LEAST, "purify": {"defenses": [*plain, {"name": "x", "after": "sau"}]}})

    assert [rule.after for rule in policy.defenses] == ["", "", "sau"]
    assert [set(rule) for rule in policy.to_dict()["defenses"]] == [{"name", "params"}] * 2 + [
        {"name", "params", "after"}
    ]
    assert Policy.from_dict(policy.to_dict()) == policy


def test_policies_without_a_chain_keep_the_digest_that_they_had_before_there_were_any() -> None:
    policy = policy_from(
        {**LEAST, "purify": {"defenses": [{"name": "sau", "params": {"rounds": 3}}]}}
    )

    assert policy.digest == "d44c3fd5739f429329016e544d1bc4b187803509442edf1571b44c17ad0d1d80"


PAGE = Path(__file__).parents[2] / "docs/policy.md"


def test_the_page_about_policies_has_every_key_and_loads() -> None:
    example = tomllib.loads(PAGE.read_text().partition("```toml\n")[2].partition("```")[0])
    source = inspect.getsource(load)
    found = re.findall(r'\.table\("(\w+)", \{([^}]*)\}', source)
    tables = {
        name: set(re.findall(r'"(\w+)"', keys)) for name, keys in found if name != "calibration"
    }

    policy = policy_from(example)

    assert set(policy.detectors) == {"patch_inversion", "margin"}
    assert policy.proof.max_lead == 0.5
    assert [(rule.name, rule.after) for rule in policy.defenses][1:] == [
        ("sau", ""),
        ("patch_unlearning", "sau"),
        ("relabelling", ""),
        ("fresh_student", ""),
    ]
    assert {name: set(example[name]) for name in tables} == tables
    assert "[calibration]" in PAGE.read_text()


HEAD = '[policy]\nname = "x"\n[detectors.patch_inversion]\n'


def lifetime(text: str, head: str = HEAD) -> Policy:
    return policy_from(tomllib.loads(head + text))


def test_a_lifetime_table_with_its_defaults_keeps_the_digest_that_the_older_key_gave() -> None:
    old = lifetime("", '[policy]\nname = "x"\nlifetime_days = 12\n[detectors.patch_inversion]\n')

    assert lifetime('[lifetime]\ndays = 12\non_expiry = "unpublish"').digest == old.digest
    assert lifetime("").digest == Policy(name="x", detectors=old.detectors).digest
    assert "lifetime" not in old.to_dict()
    changed = lifetime('[lifetime]\nrescan_before_days = 3\non_expiry = "warn"')
    assert Policy.from_dict(changed.to_dict()) == changed
    assert detection_digest(changed) == detection_digest(lifetime(""))


def test_a_re_scan_begins_well_before_the_end_of_any_lifetime() -> None:
    assert lifetime("").rescan_before_seconds == 7 * 86400
    assert lifetime("[lifetime]\ndays = 2").rescan_before_seconds == 86400 / 2
    assert lifetime("[lifetime]\nrescan_before_days = 10").rescan_before_seconds == 10 * 86400


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[lifetime]\ndays = 0", "lifetime.days"),
        ("[lifetime]\nrescan_before_days = 30", "lifetime.rescan_before_days"),
        ('[lifetime]\non_expiry = "ignore"', "lifetime.on_expiry"),
        ("[lifetime]\nhours = 1", "lifetime.hours"),
    ],
)
def test_a_wrong_lifetime_is_named(text: str, key: str) -> None:
    with pytest.raises(PolicyError, match=key):
        lifetime(text)


def test_two_lifetimes_that_differ_are_refused() -> None:
    with pytest.raises(PolicyError, match="same rule"):
        lifetime(
            "[lifetime]\ndays = 4",
            '[policy]\nname = "x"\nlifetime_days = 3\n[detectors.patch_inversion]\n',
        )


def test_the_mode_of_the_gate_is_left_out_of_the_digest_where_it_enforces() -> None:
    plain, warns = lifetime(""), lifetime('[gate]\nmode = "warn"')

    assert lifetime('[gate]\nmode = "enforce"').digest == lifetime("[gate]").digest == plain.digest
    assert "gate" not in plain.to_dict()
    assert (plain.gate_mode, warns.gate_mode) == (GateMode.ENFORCE, GateMode.WARN)
    assert warns.digest != plain.digest
    assert Policy.from_dict(warns.to_dict()) == warns
    assert detection_digest(warns) == detection_digest(plain)
    assert warns.gated(Verdict.UNVETTABLE) is None
    assert plain.gated(Verdict.HELD) is None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[gate]\nmode = "off"', "gate.mode must be one of enforce, warn"),
        ("[gate]\nmode = true", "gate.mode"),
        ('[gate]\naction = "warn"', "gate.action"),
    ],
)
def test_a_wrong_mode_is_named(text: str, key: str) -> None:
    with pytest.raises(PolicyError, match=key):
        lifetime(text)
