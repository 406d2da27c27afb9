"""The ML-BOM: valid by the official schema, with intervals, lineage, gaps and the claim."""

from dataclasses import replace

import pytest

from guard.core.sift import SiftedSet, SiftVerdict
from guard.core.states import Verdict
from guard.reports._metrics import wilson
from guard.reports.cyclonedx import render_bom
from tests.reports.official import bom_faults
from tests.reports.samples import bare, purified, rejected, retrained, with_facts
from tests.reports.test_sarif import HOSTILE


def test_the_official_schema_finds_a_fault_in_a_wrong_bom() -> None:
    bom = render_bom(rejected())
    bom["metadata"]["component"]["modelCard"]["modelParameters"]["approach"]["type"] = "guessed"

    assert bom_faults(bom)


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_is_valid_and_only_a_pass_conforms(verdict: Verdict) -> None:
    bom = render_bom(bare(verdict, issued_at="2026-11-30T12:00:00Z", verdict_id="v1"))
    ((attested,),) = (one["map"] for one in bom["declarations"]["attestations"])

    assert bom_faults(bom) == []
    assert attested["conformance"]["score"] == (verdict in {Verdict.CLEARED, Verdict.PURIFIED})
    assert bom["declarations"]["claims"][0]["predicate"].startswith(str(verdict))


@pytest.mark.row(39)
def test_a_rejected_model_has_its_numbers_with_intervals_and_its_accusations() -> None:
    bom = render_bom(rejected())
    component = bom["metadata"]["component"]
    accuracy, asr = component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    (accused,) = bom["vulnerabilities"]

    assert bom_faults(bom) == []
    assert component["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert accuracy["type"] == "accuracy"
    low, high = wilson(0.896, 600)
    assert accuracy["confidenceInterval"] == {
        "lowerBound": f"{low:.4f}",
        "upperBound": f"{high:.4f}",
    }
    assert asr["slice"] == "patch trigger to class 3 (Dress)"
    assert asr["confidenceInterval"] == {"lowerBound": "0.9510", "upperBound": "0.9810"}
    limits = component["modelCard"]["considerations"]["technicalLimitations"]
    assert any("mostly missed are warp" in one for one in limits)
    assert any("blend" in one for one in limits)
    assert (accused["ratings"][0]["severity"], accused["cwes"]) == ("critical", [506])
    assert accused["affects"] == [{"ref": component["bom-ref"]}]
    assert any("could not look" in one["description"] for one in bom["declarations"]["evidence"])


def test_wilson_is_the_interval_of_the_textbook() -> None:
    assert wilson(0.9, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert wilson(0.0, 10)[0] == 0.0
    assert wilson(1.0, 10)[1] == pytest.approx(1.0)


@pytest.mark.row(23)
def test_a_repaired_model_names_its_ancestor_its_defense_and_its_price() -> None:
    bom = render_bom(with_facts(purified(), asr_upper=0.05))
    component = bom["metadata"]["component"]
    card = component["modelCard"]

    assert bom_faults(bom) == []
    assert component["pedigree"]["ancestors"][0]["hashes"][0]["content"] == "a" * 64
    assert "sau" in component["pedigree"]["notes"]
    assert "0.8830" in card["considerations"]["performanceTradeoffs"][0]
    slices = [one["slice"] for one in card["quantitativeAnalysis"]["performanceMetrics"]]
    assert slices[1].endswith("of the upload")
    assert slices[2].endswith("of the repaired model")
    assert slices[3] == "all accused triggers at once"
    assert bom["vulnerabilities"] == []


def test_a_retrained_model_names_what_it_replaces_and_its_training_set() -> None:
    sifted = SiftedSet(uri="s3://sets/digits", digest="9" * 64, result=SiftVerdict.NOTHING)
    bom = render_bom(with_facts(retrained(), training_set=sifted))
    component = bom["metadata"]["component"]

    assert bom_faults(bom) == []
    assert component["pedigree"]["ancestors"][0]["version"] == "2" * 12
    assert "trap_and_replace" in component["pedigree"]["notes"]
    assert component["modelCard"]["modelParameters"]["datasets"][0]["name"] == "s3://sets/digits"
    made = retrained()
    assert made.retraining is not None
    first = render_bom(replace(made, retraining=replace(made.retraining, parent="")))
    assert "ancestors" not in first["metadata"]["component"]["pedigree"]
    child = render_bom(with_facts(bare(Verdict.CLEARED), parent="7" * 64))
    assert child["metadata"]["component"]["pedigree"]["notes"] == "Made from its ancestor."


def test_the_same_report_gives_the_same_bom_and_hostile_text_stays_text() -> None:
    report = replace(with_facts(rejected(), reasons=(HOSTILE,)), name=HOSTILE)
    bom = render_bom(report)

    assert bom == render_bom(report)
    assert bom["serialNumber"] != render_bom(rejected())["serialNumber"]
    assert bom_faults(bom) == []
    assert "\x1b" not in str(bom)
    unread = bare(Verdict.UNVETTABLE, digest="")
    assert "hashes" not in render_bom(unread)["metadata"]["component"]
