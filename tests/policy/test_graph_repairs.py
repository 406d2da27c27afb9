"""Faults of repaired text-to-graph models."""

from dataclasses import replace
from typing import Any

import pytest

from guard.core.evidence import Accuracy, AsrEstimate
from guard.core.graph_proof import GraphProof, Inverted, Unprompted
from guard.core.modality import Modality
from guard.core.plain import from_plain, to_plain
from guard.core.purification import PurificationFacts, summary
from guard.policy import Policy
from guard.policy.repair_limits import all_faults
from tests.graph_toys import QUALITY

TARGET = "C1CS1"
POLICY = Policy(name="text-to-graph", modality=Modality.GRAPHS)


def rate(hits: int = 0, trials: int = 640, family: str = "prompt", **more: Any) -> AsrEstimate:
    high = hits / trials + 0.006
    facts: dict[str, Any] = {"natural": 0.0, **more}
    return AsrEstimate(
        target=TARGET,
        family=family,
        successes=hits,
        trials=trials,
        estimate=hits / trials,
        low=0.0,
        high=high,
        **facts,
    )


PROOF = GraphProof(
    before=QUALITY,
    after=replace(QUALITY, similarity=QUALITY.similarity - 0.01),
    neighbours=(rate(),),
    unprompted=(
        Unprompted(
            fragment=TARGET, route="prior", samples=600, before=0.2, after=0.005, curated=0.001
        ),
    ),
    inverted=(Inverted(fragment=TARGET, size=0.5, after=rate(10, 100, "context")),),
)


def facts(proof: GraphProof | None = PROOF, **changes: Any) -> PurificationFacts:
    plain = Accuracy(overall=0.6, per_class=(), images=128)
    known: dict[str, Any] = {"replayed": (rate(),), **changes}
    return PurificationFacts(
        defense="latent_retraining",
        version=1,
        parameters={},
        parent="a" * 64,
        acc_before=plain,
        acc_after=plain,
        seconds=1.0,
        graphs=proof,
        **known,
    )


def test_a_repair_that_left_nothing_has_no_faults_and_is_summed_up_with_its_proof() -> None:
    assert list(all_faults(POLICY, facts())) == []
    assert summary(facts()).graphs == PROOF
    assert from_plain(PurificationFacts, to_plain(facts())) == facts()


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (facts(None), "was not measured"),
        (facts(replace(PROOF, after=replace(QUALITY, similarity=0.5))), "cost 10.0% of similarity"),
        (facts(replace(PROOF, after=replace(QUALITY, similarity=float("nan")))), "cost nan"),
        (facts(replayed=(rate(20),)), "The parent's trigger still leads"),
        (facts(replace(PROOF, neighbours=(rate(20),))), "of the style of the parent's trigger"),
        (facts(replace(PROOF, inverted=())), "was not measured"),
        (
            facts(replace(PROOF, unprompted=(replace(PROOF.unprompted[0], after=0.02),))),
            "from the prior",
        ),
        (
            facts(
                replace(
                    PROOF, inverted=(replace(PROOF.inverted[0], after=rate(30, 100, "context")),)
                )
            ),
            "A new shift by 0.5",
        ),
    ],
)
def test_what_is_left_or_lost_is_a_fault(found: PurificationFacts, what: str) -> None:
    faults = list(all_faults(POLICY, found))

    assert len(faults) == 1
    assert what in faults[0]


def test_a_trigger_may_work_as_often_as_its_fragment_comes_without_it() -> None:
    common = rate(64, natural=0.1)

    assert list(all_faults(POLICY, facts(replayed=(common,)))) == []


def test_a_fragment_may_come_untriggered_three_times_as_often_as_in_clean_data() -> None:
    often = replace(PROOF.unprompted[0], after=0.05, curated=0.02)

    assert list(all_faults(POLICY, facts(replace(PROOF, unprompted=(often,))))) == []


def test_a_shift_of_the_contexts_may_work_a_little() -> None:
    shifted = rate(60, 640, "context")

    assert list(all_faults(POLICY, facts(replayed=(shifted,)))) == []
