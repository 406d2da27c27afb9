"""The tournament of `guard purify`: real models and decisions.

What detects and what repairs is played.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import guard
from guard.core.errors import Cancelled, MethodFailed
from guard.core.evidence import Finding
from guard.core.states import Verdict
from guard.defenses import DEFENSES
from guard.detectors import DETECTORS
from guard.formats._canonical import read_canonical
from guard.ml.triggers import PatchTrigger
from guard.policy import DefenseRule, DetectorRule, Policy
from guard.policy.rules import RepairRule
from guard.reports import Report
from guard.vetting import repair_probes
from tests import schemas
from tests.cli.models import SIDE, clean_set, saved

FIRST, SECOND = DefenseRule(name="shared_distillation"), DefenseRule(name="patch_unlearning")
CHAINED = DefenseRule(name="patch_unlearning", after="shared_distillation")
Repair = Callable[[Any, nn.Module], nn.Module]


def corner() -> PatchTrigger:
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, -3:, -3:] = 1
    return PatchTrigger(mask, torch.ones(1, SIDE, SIDE))


def looks(_self: Any, model: nn.Module, clean: Any, *, progress: Any) -> list[Finding]:
    """A detector that knows where to look: a white corner that leads to class 1."""
    progress(0.5, "looking")
    others = clean.calibration.labels != 1
    said = model(corner().apply(clean.calibration.floats()[others])).argmax(1)
    obeyed = float((said == 1).float().mean())
    return [
        Finding(
            family="patch",
            target=1,
            suspicious=obeyed > 0.5,
            score=obeyed,
            statement="A white corner.",
            numbers={"p_value": 1e-6 if obeyed > 0.5 else 0.5},
            trigger=corner(),
        )
    ]


class Ring:
    """One backdoored model, an honest one's weights, and a place for what comes out."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch, self.out = monkeypatch, folder / "out"
        self.model, self.clean = (
            saved(folder / "bad", backdoored=True),
            clean_set(folder / "clean.npz"),
        )
        self.honest = read_canonical(saved(folder / "honest") / "model.safetensors")[1]
        self.before = self.files()
        monkeypatch.setattr(DETECTORS.get("patch_inversion"), "examine", looks)
        monkeypatch.setattr(repair_probes, "prove", lambda *_args, **_more: repair_probes.Proof())

    def play(self, defense: str, repair: Repair) -> None:
        """Let a defense repair so."""

        def played(own: Any, model: nn.Module, _clean: Any, *, progress: Any) -> nn.Module:
            progress(0.5, "repairing")
            return repair(own, model)

        self.monkeypatch.setattr(DEFENSES.get(defense), "repair", played)

    def heal(self, _own: Any, model: Any) -> nn.Module:
        """What a perfect defense leaves."""
        model.inner.load_state_dict(self.honest)
        return model

    def purify(self, *rules: DefenseRule, **more: Any) -> Report:
        policy = Policy(name="ring", detectors={"patch_inversion": DetectorRule()}, defenses=rules)
        return guard.purify(self.model, cleanset=self.clean, out=self.out, policy=policy, **more)

    def files(self) -> dict[str, bytes]:
        """The upload, to the bit."""
        return {path.name: path.read_bytes() for path in self.model.iterdir()}


def leave(_own: Any, model: nn.Module) -> nn.Module:
    return model


def ruin(_own: Any, model: Any) -> nn.Module:
    """A repair that costs all accuracy."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.01)
    return model


def fail(_own: Any, _model: nn.Module) -> nn.Module:
    raise MethodFailed("It found no trigger.", code="nothing")


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ring:
    return Ring(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("first", "became"), [(fail, "failed"), (leave, "rejected"), (ruin, "inconclusive")]
)
def test_where_the_first_defense_does_not_do_the_second_may(
    first: Repair, became: str, ring: Ring
) -> None:
    ring.play("shared_distillation", first)
    ring.play("patch_unlearning", ring.heal)
    report = ring.purify(FIRST, SECOND)
    loser, winner = report.candidates

    assert (report.verdict, report.purification.defense, report.purification.after) == (
        Verdict.PURIFIED,
        "patch_unlearning",
        (),
    )
    assert loser.get("verdict", "failed") == became
    assert winner["verdict"] == "purified"
    assert "after" not in winner
    assert {path.name for path in ring.out.iterdir()} == {"model.safetensors", "config.json"}
    assert ring.files() == ring.before


def test_a_loser_keeps_all_that_was_found_on_it(ring: Ring) -> None:
    ring.play("shared_distillation", leave)
    ring.play("patch_unlearning", ring.heal)
    document = json.loads(json.dumps(ring.purify(FIRST, SECOND).to_dict(), allow_nan=False))
    loser, winner = document["candidates"]

    assert schemas.faults("report.schema.json", document) == []
    assert (
        loser["facts"]["replayed"][0]["estimate"] > 0.5 > winner["facts"]["replayed"][0]["estimate"]
    )
    assert loser["facts"]["parent"] == winner["facts"]["parent"] == document["parent"]
    assert len(loser["facts"]["acc_after"]["per_class"]) == 6
    assert [item["method"] for item in loser["evidence"]] == ["clean_accuracy", "patch_inversion"]
    assert {item["artifact"] for item in loser["evidence"]} == {loser["digest"]}


def test_a_defense_that_is_listed_twice_is_tried_twice(ring: Ring) -> None:
    ring.play("fine_tune", lambda own, model: ring.heal(own, model) if own.rounds == 7 else model)
    report = ring.purify(
        DefenseRule(name="fine_tune", params={"rounds": 3}),
        DefenseRule(name="fine_tune", params={"rounds": 7}),
    )

    assert report.verdict is Verdict.PURIFIED
    assert [(item["parameters"]["rounds"], item["verdict"]) for item in report.candidates] == [
        (3, "rejected"),
        (7, "purified"),
    ]


def test_a_chained_defense_goes_on_from_the_candidate_and_is_compared_with_the_upload(
    ring: Ring,
) -> None:
    seen: list[float] = []

    def finish(own: Any, model: nn.Module) -> nn.Module:
        seen.append(max(float(parameter.detach().abs().max()) for parameter in model.parameters()))
        return ring.heal(own, model)

    ring.play("shared_distillation", ruin)
    ring.play("patch_unlearning", finish)
    report = ring.purify(FIRST, CHAINED)
    first, second = report.candidates
    document = report.to_dict()

    assert report.verdict is Verdict.PURIFIED
    assert seen[0] < 0.1  # what the first one left, not the upload
    assert report.chain == "shared_distillation, then patch_unlearning"
    assert f"Purified by {report.chain} and cleared" in report.reasons[0]
    assert second["after"] == document["after"] == ["shared_distillation"]
    assert (second["facts"]["start"], first["facts"]["start"]) == (first["digest"], "")
    assert (
        second["facts"]["parent"]
        == first["facts"]["parent"]
        == report.purification.parent
        != first["digest"]
    )
    assert (
        second["facts"]["acc_before"] == first["facts"]["acc_before"] != first["facts"]["acc_after"]
    )


def test_without_a_candidate_a_chain_is_skipped_and_the_upload_stays_as_it_was(ring: Ring) -> None:
    ring.play("shared_distillation", fail)
    ring.play("patch_unlearning", ring.heal)
    report = ring.purify(FIRST, CHAINED)

    assert report.verdict is Verdict.REJECTED
    assert "nothing to go on from" in report.candidates[1]["failed"]
    assert report.candidates[1]["after"] == ["shared_distillation"]
    assert not ring.out.exists()
    assert ring.files() == ring.before


def test_a_crash_ends_one_candidate_and_is_told(ring: Ring) -> None:
    def crash(_own: Any, _model: nn.Module) -> nn.Module:
        raise RuntimeError("no memory")

    ring.play("fine_tune", crash)
    (candidate,) = ring.purify(FIRST, defense="fine_tune").candidates

    assert candidate["failed"] == "It crashed: RuntimeError: no memory"
    assert candidate["seconds"] >= 0
    assert not ring.out.exists()


def test_who_cancels_the_second_candidate_gets_nothing(ring: Ring) -> None:
    def stop(_own: Any, _model: nn.Module) -> nn.Module:
        raise Cancelled("enough")

    ring.play("shared_distillation", leave)
    ring.play("patch_unlearning", stop)
    with pytest.raises(Cancelled, match="enough"):
        ring.purify(FIRST, CHAINED)

    assert not ring.out.exists()
    assert ring.files() == ring.before


def test_who_cancels_while_the_second_candidate_is_vetted_gets_nothing(ring: Ring) -> None:
    heard: list[str] = []

    def progress(_done: float, note: str = "") -> None:
        heard.append(note)
        if (
            sum("looking" in words for words in heard) == 3
        ):  # the upload, the first candidate, the second
            raise Cancelled("enough")

    ring.play("shared_distillation", leave)
    ring.play("patch_unlearning", ring.heal)
    with pytest.raises(Cancelled, match="enough"):
        ring.purify(FIRST, SECOND, progress=progress)

    assert not ring.out.exists()


def test_a_named_defense_repairs_the_upload_with_the_parameters_of_the_first_rule(
    ring: Ring,
) -> None:
    ring.play("fine_tune", ring.heal)
    report = ring.purify(
        FIRST,
        DefenseRule(name="fine_tune", params={"rounds": 3}, after="shared_distillation"),
        DefenseRule(name="fine_tune", params={"rounds": 7}),
        defense="fine_tune",
    )

    assert (report.verdict, report.chain) == (Verdict.PURIFIED, "fine_tune")
    assert report.purification.parameters["rounds"] == 3


def test_a_held_model_is_repaired_for_whoever_asks_if_a_trigger_was_measured(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsure(own: Any, model: nn.Module, clean: Any, *, progress: Any) -> list[Finding]:
        (accused,) = looks(own, model, clean, progress=progress)
        other = Finding(
            family="blend",
            target=0,
            suspicious=False,
            score=0.1,
            statement="",
            numbers={"p_value": 0.9},
        )
        return [replace(accused, numbers={"p_value": 0.5}), other]

    monkeypatch.setattr(DETECTORS.get("patch_inversion"), "examine", unsure)
    policy = Policy(name="ring", detectors={"patch_inversion": DetectorRule()}, defenses=(FIRST,))
    ring.play("shared_distillation", lambda _own, model: model)
    before = guard.purify(ring.model, cleanset=ring.clean, out=ring.out, policy=policy)
    ring.play("shared_distillation", ring.heal)
    after = guard.purify(ring.model, cleanset=ring.clean, out=ring.out, policy=policy)

    assert before.verdict is Verdict.HELD
    assert [item["verdict"] for item in before.candidates] == ["rejected"]
    assert after.verdict is Verdict.PURIFIED
    assert after.purification.replayed


@pytest.mark.parametrize(("when", "p"), [("doubted", 0.04), ("always", 0.9)])
@pytest.mark.parametrize("heals", [True, False])
def test_what_would_pass_gets_a_repaired_copy_or_stays_held(
    ring: Ring, monkeypatch: pytest.MonkeyPatch, when: str, p: float, heals: bool
) -> None:
    """No detector flags the backdoor; a blind defense alone is tried."""
    seen = Finding(
        family="patch",
        target=None,
        suspicious=False,
        score=0.1,
        statement="",
        numbers={"p_value": p},
    )
    monkeypatch.setattr(DETECTORS.get("patch_inversion"), "examine", lambda *_a, **_m: [seen])
    ring.play("shared_distillation", leave)
    ring.play("patch_unlearning", ring.heal if heals else ruin)
    policy = Policy(
        name="ring",
        detectors={"patch_inversion": DetectorRule()},
        defenses=(FIRST, replace(SECOND, blind=True)),
        repair=RepairRule(when=when),
    )

    assert guard.scan(ring.model, cleanset=ring.clean, policy=policy).verdict is Verdict.HELD
    report = guard.purify(ring.model, cleanset=ring.clean, out=ring.out, policy=policy)

    assert [item["defense"] for item in report.candidates] == ["patch_unlearning"]
    assert report.verdict is (Verdict.PURIFIED if heals else Verdict.HELD)
    assert ring.out.exists() == heals
    if heals:
        assert report.purification.blind
        document = json.loads(json.dumps(report.to_dict()))
        assert schemas.faults("report.schema.json", document) == []


def test_where_no_copy_passes_the_upload_is_written_if_the_policy_serves_it_then(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DETECTORS.get("patch_inversion"), "examine", lambda *_a, **_m: [])
    ring.play("patch_unlearning", ruin)
    policy = Policy(
        name="ring",
        detectors={"patch_inversion": DetectorRule()},
        defenses=(replace(SECOND, blind=True),),
        repair=RepairRule(when="always", otherwise="served"),
    )

    report = guard.purify(ring.model, cleanset=ring.clean, out=ring.out, policy=policy)

    assert [item["verdict"] for item in report.candidates] == ["inconclusive"]
    assert report.verdict is Verdict.CLEARED
    assert any("No repaired copy passed" in why for why in report.facts.reasons)
    written = read_canonical(ring.out / "model.safetensors")[1]
    upload = read_canonical(ring.model / "model.safetensors")[1]
    assert all(torch.equal(upload[name], tensor) for name, tensor in written.items())


def test_a_named_defense_repairs_what_the_policy_repairs_blindly(ring: Ring) -> None:
    ring.play("shared_distillation", ring.heal)
    policy = Policy(
        name="ring",
        detectors={"patch_inversion": DetectorRule()},
        defenses=(replace(SECOND, blind=True),),
        repair=RepairRule(when="always"),
    )

    report = guard.purify(
        ring.model,
        cleanset=ring.clean,
        out=ring.out,
        policy=policy,
        defense="shared_distillation",
    )

    assert [item["defense"] for item in report.candidates] == ["shared_distillation"]


def test_what_only_a_reviewer_wants_to_see_is_not_repaired(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DETECTORS.get("patch_inversion"), "examine", lambda *_args, **_more: [])
    policy = Policy(
        name="ring",
        detectors={"patch_inversion": DetectorRule()},
        defenses=(FIRST,),
        review_always=True,
    )
    report = guard.purify(ring.model, cleanset=ring.clean, out=ring.out, policy=policy)

    assert report.verdict is Verdict.HELD
    assert not report.candidates
    assert not ring.out.exists()
