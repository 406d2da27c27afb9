"""Evidence goes into JSON and back without loss, and its key names everything that shaped it."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.core.evidence import AsrEstimate, Evidence, Finding, Outcome

ASR = AsrEstimate(
    target=3,
    family="patch",
    successes=9,
    trials=10,
    estimate=0.9,
    low=0.6,
    high=0.98,
    natural=0.2,
    budget=12.5,
)


class Trigger:
    """A trigger in memory."""

    family = "patch"

    def apply(self, images: Any) -> Any:
        return images

    def to_tensors(self) -> dict[str, Any]:
        return {}


def finding(**changes: Any) -> Finding:
    return replace(
        Finding(
            family="patch",
            target=3,
            suspicious=True,
            score=0.9,
            statement="A patch.",
            numbers={"norm": 1.5},
            asr=ASR,
            trigger_digest="ab" * 32,
        ),
        **changes,
    )


def evidence(**changes: Any) -> Evidence:
    return replace(
        Evidence(
            artifact="a" * 64,
            method="inversion",
            version=1,
            parameters={"steps": 10},
            cleanset="c" * 64,
            seed=0,
            outcome=Outcome.FINDINGS,
            families=("patch",),
            findings=(finding(),),
            seconds=1.5,
        ),
        **changes,
    )


@given(
    st.sampled_from(Outcome),
    st.lists(st.sampled_from(["patch", "warp"]), max_size=2),
    st.lists(
        st.builds(
            finding,
            target=st.none() | st.integers() | st.just("all-to-all"),
            asr=st.none() | st.just(ASR),
            suspicious=st.booleans(),
            score=st.floats(0, 1),
            statement=st.text(max_size=9),
        ),
        max_size=3,
    ),
    st.text(max_size=9),
)
def test_evidence_survives_json(
    outcome: Outcome, families: list[str], findings: list[Finding], reason: str
) -> None:
    item = evidence(
        outcome=outcome, families=tuple(families), findings=tuple(findings), reason=reason
    )

    again = Evidence.from_dict(json.loads(json.dumps(item.to_dict())))

    assert again == item
    assert again.key == item.key


def test_a_trigger_in_memory_stays_behind_and_does_not_make_findings_differ() -> None:
    held = finding(trigger=Trigger())

    assert "trigger" not in held.to_dict()
    assert held == finding()
    assert "Trigger" not in repr(held)


@pytest.mark.parametrize(
    "change",
    [
        {"artifact": "b" * 64},
        {"method": "other"},
        {"version": 2},
        {"parameters": {"steps": 11}},
        {"cleanset": "d" * 64},
        {"seed": 1},
    ],
)
def test_whatever_shapes_evidence_changes_its_key(change: dict[str, Any]) -> None:
    assert evidence(**change).key != evidence().key


@pytest.mark.parametrize(
    "change", [{"outcome": Outcome.NOTHING}, {"findings": ()}, {"reason": "x"}, {"seconds": 9.0}]
)
def test_what_a_run_found_or_took_does_not_change_its_key(change: dict[str, Any]) -> None:
    assert evidence(**change).key == evidence().key


def test_could_not_look_is_neither_findings_nor_nothing() -> None:
    assert {str(outcome) for outcome in Outcome} == {
        "findings",
        "nothing",
        "measured",
        "could_not_look",
    }
