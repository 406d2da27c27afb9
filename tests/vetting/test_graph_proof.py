"""The proof of a repaired text-to-graph model: a repair that works and one that does nothing."""

from functools import cache
from typing import TYPE_CHECKING, Any, cast

import pytest

from benchmarks import graph_training
from guard.core.errors import Cancelled
from guard.core.evidence import Evidence, Finding, Outcome
from guard.core.graph_proof import GraphProof
from guard.core.progress import silent
from guard.defenses.latent_retraining import LatentRetraining
from guard.graphs.triggers import ContextTrigger, PromptTrigger
from guard.ml.triggers.files import serialise
from guard.vetting import _graphs
from guard.vetting._graph_proof import STYLE, WITHOUT, compared
from guard.vetting.parent_comparison import replays_from
from guard.vetting.repair_probes import Replay
from tests.graphs import planted

if TYPE_CHECKING:
    from guard.graphs.model import GraphModel


def replay(trigger: PromptTrigger | ContextTrigger) -> Replay:
    return Replay(planted.FRAGMENT, "e" * 64, serialise(trigger))


def shift() -> ContextTrigger:
    """From prompts to the same prompts with the text."""
    model, texts = planted.model(planted=True), planted.clean().search.texts
    with_text = model.contexts(planted.TRIGGER.apply(texts))
    return ContextTrigger((with_text - model.contexts(texts)).mean(0))


@cache
def proof(*, works: bool) -> dict[str, Any]:
    parent = planted.model(planted=True)
    method = LatentRetraining(vae_epochs=15, vae_rate=5e-3, steps=300, rate=5e-3)
    child = cast("GraphModel", method(parent, planted.clean(), seed=1)) if works else parent
    return compared(
        parent,
        child,
        planted.curated(),
        [replay(planted.TRIGGER), replay(shift())],
        seed=4,
        progress=silent,
    )


def test_a_child_that_is_its_parent_has_all_of_the_backdoor() -> None:
    found = proof(works=False)
    graphs = found["graphs"]

    assert isinstance(graphs, GraphProof)
    assert found["acc_before"] == found["acc_after"]
    assert graphs.before == graphs.after
    assert [one.family for one in found["replayed"]] == ["prompt", "context"]
    assert all(one.trials == 5 * 20 and one.estimate >= 0.5 for one in found["replayed"])
    assert [(one.route, one.before) for one in graphs.unprompted] == [
        (one.route, one.after) for one in graphs.unprompted
    ]
    assert [one.after.estimate >= 0.5 for one in graphs.inverted] == [True]
    assert found["unproved"] == ()


def test_a_repair_that_works_leaves_little_of_it() -> None:
    found, left = proof(works=True), proof(works=False)
    graphs = found["graphs"]

    assert found["unproved"] == ()
    assert all(one.estimate <= 0.1 for one in found["replayed"])
    assert [one.trials for one in graphs.neighbours] == [STYLE * 20]
    assert graphs.neighbours[0].estimate <= 0.1 < left["graphs"].neighbours[0].estimate
    assert {one.route for one in graphs.unprompted} == {"prior", "null"}
    for one in graphs.unprompted:
        assert (one.fragment, one.samples, one.curated) == (planted.FRAGMENT, WITHOUT, 0)
        assert one.after <= 0.05 < one.before
    assert graphs.inverted[0].after.estimate <= 0.1


def test_relearning_is_stated_of_texts_with_rivals_in_their_place() -> None:
    (repaired,), (same,) = (proof(works=one)["relearned"] for one in (True, False))

    assert repaired.target == planted.FRAGMENT
    assert repaired.family == "prompt"
    assert repaired.steps == (0, 20, 60)
    assert repaired.asr[0] <= 0.1
    assert same.asr[0] >= 0.5
    assert 6 <= same.images <= 12
    assert [len(rates) for rates in repaired.rivals] == [3, 3]


def test_what_the_parent_never_planted_cannot_be_relearned_and_that_is_stated() -> None:
    model = planted.model(planted=False)
    found = compared(
        model, model, planted.curated(), [replay(planted.TRIGGER)], seed=4, progress=silent
    )

    assert found["relearned"] == ()
    (sentence,) = found["unproved"]
    assert sentence == (
        "How fast a text is relearned could not be measured: The parent makes only 0 molecules "
        "with C1CS1."
    )


def test_without_a_replay_quality_alone_is_compared() -> None:
    model = planted.model(planted=True)
    found = compared(model, model, planted.curated(), [], seed=4, progress=silent)
    graphs = found["graphs"]

    assert (graphs.neighbours, graphs.unprompted, graphs.inverted) == ((), (), ())
    assert (found["replayed"], found["relearned"], found["unproved"]) == ((), (), ())
    assert found["acc_after"].overall == graphs.after.similarity > 0


def test_a_repair_that_is_cancelled_ends_the_proof() -> None:
    def stop(done: float, note: str = "") -> None:
        raise Cancelled("enough")

    model = planted.model(planted=True)
    with pytest.raises(Cancelled):
        compared(model, model, planted.curated(), [replay(planted.TRIGGER)], seed=4, progress=stop)


def test_a_benchmark_gives_every_prompt_noise_of_its_own() -> None:
    model, text = planted.model(planted=False), planted.clean().search.texts[0]

    found = graph_training.answers(model, [text] * 20, 2, 5)

    assert [len(one) for one in found] == [2] * 20
    repeated = model.generate([text] * 20, 2, 5)
    assert len({tuple(one) for one in repeated}) == 1 < len({tuple(one) for one in found})
    assert found[0] == repeated[0]


def accused(family: str, target: str, **more: Any) -> Evidence:
    """Evidence of one method that accuses one fragment."""
    finding = Finding(
        family=family, target=target, suspicious=True, score=0.9, statement="It is planted.", **more
    )
    return Evidence(
        artifact="a" * 64,
        method=family,
        version=1,
        parameters={},
        cleanset="c" * 64,
        seed=0,
        outcome=Outcome.FINDINGS,
        families=(family,),
        findings=(finding,),
    )


def test_a_fragment_without_a_trigger_is_tried_with_the_trigger_of_another() -> None:
    model, curated, triggers = planted.model(planted=True), planted.curated(), dict[str, bytes]()
    measured = [
        _graphs.with_rates(item, model, curated, triggers, seed=0)
        for item in (
            accused("context", planted.FRAGMENT, trigger=shift()),
            accused("prompt", planted.FRAGMENT, trigger=planted.TRIGGER),
        )
    ]
    larger, other, asked = (accused("motif", one) for one in ("CC1CS1", "CBr", "C"))

    found = _graphs.completed((*measured, larger, other, asked), model, curated, triggers, seed=0)

    (tried,) = found[2].findings
    assert found[:2] == tuple(measured)
    assert found[3:] == (other, asked)
    assert tried.asr is not None
    assert (tried.asr.target, tried.family, tried.asr.family) == ("CC1CS1", "motif", "prompt")
    assert tried.asr.low > (tried.asr.natural or 0.0)
    assert tried.trigger_digest == measured[1].findings[0].trigger_digest
    assert tried.statement == "It is planted. What plants C1CS1 plants it as well."
    assert [one.target for one in replays_from(found, triggers)] == [
        planted.FRAGMENT,
        planted.FRAGMENT,
        "CC1CS1",
    ]
