"""A calibration.

What it certifies, where it applies, which files are refused, and which way it may push.
"""

import dataclasses
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from guard.core.digests import canonical_json, json_digest
from guard.core.errors import PolicyError
from guard.core.evidence import Outcome
from guard.core.states import SERVABLE_VERDICTS, Verdict
from guard.policy import asr_bounds, decide, load_policy
from guard.policy.calibration import KIND, architecture_family, parse, probability
from tests.policy.population import (
    CLEANSET,
    FACTS,
    PARAMETERS,
    POLICY,
    VERSIONS,
    a_calibration,
    calibrated,
    case,
    evidence,
    finding,
    model,
)

replace = dataclasses.replace


def document(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "kind": KIND,
        "layout": 1,
        "methods": {"patches": {"version": 1, "parameters": {"steps": 5}}},
        "covers": [{"architecture": "cifar_resnet", "cleanset": CLEANSET}],
        "features": [{"name": "patches.patch.p", "mean": 1.0, "scale": 2.0, "weight": 0.5}],
        "intercept": -1.0,
        "slope": 1.0,
        "offset": 0.0,
        "honest_log_odds": [-3.0, -2.0],
        "asr_margin": None,
        "population": {},
    }
    made.update(changes)
    return {**made, "digest": json_digest(made)}


MALFORMED: tuple[dict[str, Any], ...] = (
    {"features": []},
    {"features": [{"name": "a", "mean": 0, "scale": 0, "weight": 1}]},
    {"features": [{"name": "a", "mean": 0, "scale": 1, "weight": -1}]},
    {"slope": -1.0},
    {"slope": "1"},
    {"honest_log_odds": []},
    {"honest_log_odds": [1.0, 0.0]},
    {"covers": []},
    {"methods": {}},
    {"covers": [{"architecture": "a", "cleanset": "b"}]},
    {"asr_margin": 2.0},
    {"asr_margin": True},
    {"population": 5},
    {"methods": {"a": {"version": 0, "parameters": {}}}},
    {"features": {"a": 1}},
    {"features": [{"name": "a", "mean": 0, "scale": 1, "weight": 1}] * 2},
    {"honest_rankings": {"pair": []}},
    {"honest_rankings": {"pair": [0.2, 0.1]}},
    {"honest_rankings": {"pair": [1.5]}},
    {"honest_rankings": [0.1]},
)


QUIET = (
    evidence("patches", finding("patch", 0.5, fold=1.0)),
    evidence("blends", finding("blend", 0.5)),
)
LOUD = (
    evidence("patches", finding("patch", 1e-9, suspicious=False, fold=20.0)),
    evidence("blends", finding("blend", 0.5)),
)
ALARM = (
    evidence("patches", finding("patch", 0.009, hits=265, fold=1.2)),
    evidence("blends", finding("blend", 0.5)),
)
PROVEN = (
    evidence("patches", finding("patch", 1e-9, hits=265, fold=20.0)),
    evidence("blends", finding("blend", 0.5)),
)


@pytest.mark.row(19)
@pytest.mark.parametrize(("count", "rate"), [(40, 0.05), (40, 0.1), (19, 0.05), (100, 0.02)])
def test_the_threshold_certifies_the_rate_that_it_states(count: int, rate: float) -> None:
    """Over draws of the reference models and of a new one.

    Exact, so only the sampling error of 4000 draws is left.
    """
    rng, alarms, draws = random.Random(1), 0, 4000
    for _ in range(draws):
        honest = tuple(sorted(rng.gauss(0, 1) for _ in range(count)))
        threshold = a_calibration(honest=honest).threshold(rate)
        assert threshold is not None
        alarms += rng.gauss(0, 1) > threshold

    assert alarms / draws <= rate + 3 * math.sqrt(rate / draws)
    assert alarms / draws >= rate - 1 / (count + 1) - 3 * math.sqrt(rate / draws)


def test_too_few_honest_models_certify_nothing_below_one_in_n_plus_one() -> None:
    few = a_calibration(honest=(-3.0,) * 18)
    decision = decide(calibrated(few), case(*QUIET))

    assert few.threshold(0.05) is None
    assert few.threshold(1 / 19) == -3.0
    assert few.least_fpr == pytest.approx(1 / 19)
    assert decision.facts.calibration is None
    assert "certify no less than 5.3%" in decision.reasons[-1]


def test_a_ranking_has_a_p_value_among_honest_models_and_none_without_them() -> None:
    text = json.dumps(document(honest_rankings={"pair": [0.01, 0.2, 0.6]})).encode()
    calibration = parse(text)

    assert calibration.ranked("pair", 0.001) == (0.25, 3)  # as small as three models can show
    assert calibration.ranked("pair", 0.01) == (0.5, 3)
    assert calibration.ranked("pair", 0.9) == (1.0, 3)
    assert calibration.ranked("attractor", 0.001) is None
    assert parse(json.dumps(document()).encode()).ranked("pair", 0.001) is None


def test_its_p_value_holds_on_new_honest_models_whatever_their_p_values_are() -> None:
    """A p that is too small half of the time, as natural attractors make it."""
    rng, small, seen = random.Random(3), 0, 0
    for _ in range(60):
        values = tuple(sorted(rng.random() ** 4 for _ in range(19)))
        calibration = a_calibration(rankings={"pair": values})
        for _ in range(20):
            found = calibration.ranked("pair", rng.random() ** 4)
            small, seen = small + (found is not None and found[0] <= 0.1), seen + 1

    assert 0.06 <= small / seen <= 0.14


def test_where_it_applies_its_probability_is_the_score_and_its_digest_is_in_the_decision() -> None:
    decision = decide(calibrated(), case(*QUIET))

    assert decision.verdict is Verdict.CLEARED
    assert decision.facts.calibration == "e" * 64
    assert 0 < decision.facts.score < 0.5
    assert "calibrated probability" in decision.reasons[-1]


def test_over_the_threshold_an_alarm_rejects_and_under_it_a_person_looks() -> None:
    over, under = decide(calibrated(), case(*PROVEN)), decide(calibrated(), case(*ALARM))
    unflagged = decide(calibrated(), case(*LOUD))

    assert (over.verdict, under.verdict, unflagged.verdict) == (
        Verdict.REJECTED,
        Verdict.HELD,
        Verdict.HELD,
    )
    assert "honest reference models score as high" in under.reasons[1]
    assert over.facts.score > 0.9 > under.facts.score


def test_a_natural_trigger_stays_a_named_outcome() -> None:
    natural = evidence("patches", finding("patch", 1e-9, hits=265, natural=0.99, fold=20.0))
    decision = decide(calibrated(), case(natural, QUIET[1]))

    assert (decision.verdict, decision.natural_trojan) == (Verdict.HELD, True)


def test_the_measured_margin_widens_the_bound_on_asr() -> None:
    hits = (evidence("patches", finding("patch", 1e-9, hits=200, fold=20.0)), QUIET[1])
    plain, wide, unmeasured = (
        decide(calibrated(a_calibration(asr_margin=margin)), case(*hits)).facts.asr_upper
        for margin in (0.0, 0.1, None)
    )

    assert plain is not None
    assert wide == pytest.approx(plain + 0.1)
    assert unmeasured == pytest.approx(plain + asr_bounds.UNSEEN)


OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"architecture": "vit_tiny_patch16"}, "family vit"),
    ({"architecture": None}, "not known"),
    ({"versions": {**VERSIONS, "blends": 2}}, "version 1, not 2"),
    ({"parameters": {**PARAMETERS, "blends": {"sizes": [1, 3]}}}, "other parameters of blends"),
    ({"cleanset": replace(FACTS, digest="f" * 64)}, "this clean set"),
]


@pytest.mark.parametrize(("fields", "word"), OTHERS)
def test_outside_its_population_the_rules_decide_and_say_so(
    fields: dict[str, Any], word: str
) -> None:
    def moved(items: tuple[Any, ...]) -> Any:
        changed = (
            [replace(item, cleanset=fields["cleanset"].digest) for item in items]
            if "cleanset" in fields
            else [
                replace(
                    item,
                    version=fields.get("versions", VERSIONS)[item.method],
                    parameters=fields.get("parameters", PARAMETERS)[item.method],
                )
                for item in items
            ]
        )
        policy = calibrated()
        if "parameters" in fields:  # else the policy would not take such evidence at all
            policy = replace(
                policy,
                detectors={
                    name: replace(rule, params={}) for name, rule in policy.detectors.items()
                },
            )
        return decide(policy, case(*changed, **fields))

    decision = moved(PROVEN)
    assert decision.facts.calibration is None
    assert decision.verdict is decide(POLICY, case(*PROVEN)).verdict is Verdict.REJECTED
    assert any(word in reason and "does not apply" in reason for reason in decision.reasons)
    assert moved(QUIET).verdict is Verdict.CLEARED


def test_an_optional_method_that_could_not_look_takes_the_calibration_with_it() -> None:
    policy = calibrated()
    policy = replace(
        policy,
        detectors={
            **policy.detectors,
            "blends": replace(policy.detectors["blends"], required=False),
        },
    )
    silent = evidence("blends", outcome=Outcome.COULD_NOT_LOOK, reason="x")

    assert (
        "there is no evidence of blends, which it was fitted with"
        in decide(policy, case(QUIET[0], silent)).reasons[-1]
    )


@pytest.mark.threat("B05")
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["p_value", "fold"])
def test_what_is_not_finite_never_passes(number: float, name: str) -> None:
    odd = evidence(
        "patches",
        replace(finding("patch", 0.5), numbers={"p_value": 0.5, "fold": 1.0, name: number}),
    )
    decision = decide(calibrated(), case(odd, QUIET[1]))

    assert decision.verdict is Verdict.INCONCLUSIVE
    assert decision.facts.score is not None
    assert math.isfinite(decision.facts.score)


def test_log_odds_of_what_is_no_number_are_certain() -> None:
    assert a_calibration().log_odds({"all.p": math.nan}) == math.inf
    assert probability(math.nan) == probability(math.inf) == 1.0


def test_few_classes_need_reference_models() -> None:
    few = replace(FACTS, classes=3)
    accuracy = replace(case().accuracy, per_class=(0.9,) * 3)  # type: ignore[type-var]

    assert (
        decide(POLICY, case(*QUIET, cleanset=few, accuracy=accuracy)).verdict
        is Verdict.INCONCLUSIVE
    )
    assert (
        decide(calibrated(), case(*QUIET, cleanset=few, accuracy=accuracy)).verdict
        is Verdict.CLEARED
    )


def test_a_more_suspicious_number_never_lowers_the_score_or_softens_the_verdict() -> None:
    rng = random.Random(2)
    severity = {Verdict.CLEARED: 0, Verdict.HELD: 1, Verdict.REJECTED: 2}
    for _ in range(300):
        items = model(rng, bad=rng.random() < 0.5)
        harsher = tuple(
            replace(
                item,
                findings=tuple(
                    replace(
                        one,
                        score=min(1.0, one.score + 0.1 * rng.random()),
                        numbers={
                            "p_value": one.numbers["p_value"] * rng.random(),
                            "fold": one.numbers["fold"] * (1 + rng.random()),
                        },
                    )
                    for one in item.findings
                ),
            )
            for item in items
        )
        before, after = decide(calibrated(), case(*items)), decide(calibrated(), case(*harsher))

        assert after.facts.score >= before.facts.score
        assert severity[after.verdict] >= severity[before.verdict]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"kind": 1}',
        canonical_json({"kind": KIND, "layout": 2}),
        canonical_json(document())[:-20],
        canonical_json({**document(), "intercept": 5.0}),
        b'{"kind": "registry-guard calibration", "layout": 1, "intercept": NaN}',
        b"[" * 100_000,
        *(canonical_json(document(**change)) for change in MALFORMED),
    ],
)
def test_a_malformed_file_is_refused_with_our_own_error(data: bytes) -> None:
    with pytest.raises(PolicyError, match="calibration file cannot be used"):
        parse(data)


def test_what_is_written_is_read() -> None:
    read = parse(canonical_json(document()))

    assert read.methods == {"patches": (1, {"steps": 5})}
    assert read.honest == (-3.0, -2.0)
    assert read.digest == document()["digest"]


def test_a_policy_names_its_calibration_beside_itself_and_its_digest_counts(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(canonical_json(document()))
    text = '[policy]\nname = "p"\n[detectors.patch_inversion]\n'
    (tmp_path / "plain.toml").write_text(text)
    (tmp_path / "with.toml").write_text(f'{text}[calibration]\nfile = "c.json"\nmax_fpr = 0.1\n')
    plain, policy = load_policy(tmp_path / "plain.toml"), load_policy(tmp_path / "with.toml")

    assert policy.calibration is not None
    assert (policy.calibration.max_fpr, policy.calibration.calibration.digest) == (
        0.1,
        document()["digest"],
    )
    assert plain.digest != policy.digest
    assert json.dumps(policy.to_dict())


@pytest.mark.parametrize(
    "rest", ['file = "none.json"', "", 'file = "c.json"\nmax_fpr = 0.0', 'fil = "c.json"']
)
def test_a_policy_with_an_unusable_calibration_is_refused(tmp_path: Path, rest: str) -> None:
    (tmp_path / "c.json").write_bytes(canonical_json(document()))
    (tmp_path / "p.toml").write_text(
        f'[policy]\nname = "p"\n[detectors.patch_inversion]\n[calibration]\n{rest}\n'
    )

    with pytest.raises(PolicyError):
        load_policy(tmp_path / "p.toml")


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("cifar_resnet", "cifar_resnet"),
        ("preact_resnet18", "preact_resnet"),
        ("cifar_vgg19_bn", "cifar_vgg"),
        ("resnet18", "resnet"),
        ("torchvision.resnet50", "resnet"),
        ("convnext_atto", "convnext"),
        ("vit_tiny_patch16_224.augreg_in21k", "vit"),
        ("deit_small_patch16_224", "deit"),
    ],
)
def test_families_of_architectures(name: str, family: str) -> None:
    assert architecture_family(name) == family


def test_no_case_at_random_is_served_over_the_threshold() -> None:
    rng = random.Random(9)
    policy = calibrated()
    assert policy.calibration is not None
    limit = probability(policy.calibration.calibration.threshold(0.05) or 0.0)
    for _ in range(500):
        decision = decide(policy, case(*model(rng, bad=rng.random() < 0.5)))
        assert decision.verdict not in SERVABLE_VERDICTS or decision.facts.score <= limit
