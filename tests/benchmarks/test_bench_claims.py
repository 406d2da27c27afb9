"""What the claims' page says of rows: counted by hand, for models of which one was asked twice."""

from typing import Any

from benchmarks.purify.claims_report import INSIDE, page, summary


def a_row(model: str, *, plain: float, active: float, risk: float, within: float) -> dict[str, Any]:
    tuned = {
        name: {"acc": 0.8, "asr": asr}
        for name, asr in (("reset", 0.5), ("plain", plain), ("active", active))
    }
    return {
        "model": model,
        "activeness": [{**tuned, "neurons": 0.15}],
        "bound": {"as it is": {"acc": 0.8, "asr": 0.9, "risk": risk, "within": within}},
        "correlation": {"spearman": 0.5, "pearson": 0.5, "top_shared": 0.4, "by_chance": 0.1},
    }


ROWS = [
    a_row("one", plain=0.4, active=0.2, risk=0.95, within=1.0),
    a_row("one", plain=0.4, active=0.4, risk=0.95, within=1.0),
    a_row("two", plain=0.1, active=0.3, risk=0.5, within=0.4),
]


def test_the_penalty_is_judged_by_pairs_and_a_tie_is_no_win() -> None:
    (line,) = summary(ROWS)["activeness"]

    assert (line["runs"], line["models"], line["lower_asr"]) == (3, 2, 1)
    assert abs(line["gain_asr"]["mean"]) < 1e-9
    assert line["gain_asr"]["low"] < 0 < line["gain_asr"]["high"]


def test_pairs_whose_trigger_leaves_the_ball_are_counted_apart() -> None:
    found = summary(ROWS)["bound"]

    assert found == {"all": {"pairs": 3, "held": 2}, INSIDE: {"pairs": 2, "held": 2}}


def test_the_page_has_a_line_for_each_share_and_survives_a_model_without_answers() -> None:
    rows = [*ROWS, {"model": "three", "correlation_failed": "No.", "bound_failed": "No."}]
    text = page({"summary": summary(rows), "top": 0.15, "note": ""})

    assert "| 15% | 3 (2) |" in text
    assert "in 2 of 3 pairs, and in 2 of 2 of those" in text
    assert "| as it is | 2 | 95.0% | 90.0% | 2 of 2 |" in text
    older = {key: value for key, value in summary(rows).items() if key != "bound_by"}
    assert "in 2 of 2 of those" in page({"summary": older, "top": 0.15, "note": ""})
    assert page({"summary": summary([]), "top": 0.15, "note": ""}).startswith(
        "(a) No model could be asked."
    )
