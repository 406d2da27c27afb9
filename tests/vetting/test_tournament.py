"""The service's tournament.

What ends it, what only ends one candidate, and what a candidate starts from.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from guard.attest import dsse
from guard.core.errors import MethodFailed
from guard.core.notes import Attempt, ScanNotes
from guard.core.states import ScanState, Verdict
from guard.defenses import DEFENSES
from guard.flow import purify, review, run_stage
from guard.flow.report import report_for
from guard.jobs import child
from guard.jobs.run import run_job
from guard.ml.accused import Accused
from guard.ml.cleanset import Labelled
from guard.policy import DefenseRule
from guard.store import artifacts, ledger, scans
from guard.store.session import reading, transaction
from guard.vetting import repair_probes
from guard.vetting.accused import AccusedImages, Proof, packed
from tests.flow.place import Place
from tests.flow.test_stages import decided, finding


def test_a_held_candidate_that_a_reviewer_clears_wins(tmp_path: Path) -> None:
    place = Place(tmp_path)
    parent = decided(place, finding(suspicious=True))
    child = place.upload(seed=1)
    assert run_stage.work(place.guard, "inspect", child)
    place.with_evidence(child, finding(suspicious=True, natural=0.97))
    assert run_stage.work(place.guard, "decide", child)
    first = place.guard.policy.defenses[0].name
    with transaction(place.guard.engine) as session:
        scans.move(
            session,
            parent,
            ScanState.PURIFYING,
            place.clock,
            detail=ScanNotes(candidates=(Attempt(defense=first, child=child),)),
        )
    review.approve(place.guard, child, "bob", "the class is a white square by nature")

    run_stage.work(place.guard, "purify", parent)

    assert place.scan(parent).state is ScanState.DONE
    assert place.scan(parent).detail.candidates == (
        Attempt(defense=first, child=child, verdict=Verdict.CLEARED),
    )


def softened(model: nn.Module, factor: float = 0.5) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    return model


def played(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    first: Callable[[nn.Module], nn.Module],
    then: DefenseRule,
) -> tuple[str, list[dict[str, Any]]]:
    """A rejected parent whose purify jobs run in this process, and their requests.

    `first` is the first repair.
    """
    requests: list[dict[str, Any]] = []
    real = run_job

    def run(kind: str, request: Any, out: Path, **more: Any) -> dict[str, Any]:
        if kind != "purify":
            return real(kind, request, out, **more)
        requests.append(json.loads(json.dumps(request)))
        return json.loads(json.dumps(child.purify(requests[-1], out), allow_nan=False))

    def second(model: nn.Module) -> nn.Module:
        softened(model, 2.0 if then.after else 1.0)  # what the first one took is given back
        softened(next(model.children()), 1.0001)  # other bytes, the same answers
        return model

    monkeypatch.setattr(purify, "run_job", run)
    monkeypatch.setattr(repair_probes, "prove", lambda *_args, **_more: repair_probes.Proof())
    for name, repair in (("shared_distillation", first), ("patch_unlearning", second)):
        monkeypatch.setattr(
            DEFENSES.get(name),
            "repair",
            lambda _self, model, _clean, repair=repair, **_more: repair(model),
        )
    rules = (DefenseRule(name="shared_distillation"), then)
    place.guard = replace(place.guard, policy=replace(place.guard.policy, defenses=rules))
    return decided(place, finding(suspicious=True)), requests


def vetted(place: Place, parent: str, *, suspicious: bool) -> str:
    """Make the next candidate and vet it; returns its scan."""
    assert run_stage.work(place.guard, "purify", parent)
    child = place.scan(parent).detail.candidates[-1].child
    assert child is not None
    assert run_stage.work(place.guard, "inspect", child)
    place.with_evidence(child, finding(suspicious=suspicious))
    assert run_stage.work(place.guard, "decide", child)
    return child


def signed(place: Place, scan_id: str) -> dict[str, Any]:
    """What the verdict in force on a scan says, by its signature."""
    with reading(place.guard.engine) as session:
        row = ledger.get(session, str(scans.get(session, scan_id).verdict_id))
    return dict(dsse.verify(row.envelope, place.guard.trusted)["predicate"])


@pytest.mark.parametrize("after", ["", "shared_distillation"])
def test_the_second_candidate_wins_and_may_go_on_from_the_first(
    after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    parent, requests = played(
        place, monkeypatch, softened, DefenseRule(name="patch_unlearning", after=after)
    )
    loser = vetted(place, parent, suspicious=True)
    winner = vetted(place, parent, suspicious=False)
    run_stage.work(place.guard, "purify", parent)
    upload = place.scan(parent)
    first, second = upload.detail.candidates

    assert (upload.state, first.verdict, second.verdict) == (
        ScanState.DONE,
        Verdict.REJECTED,
        Verdict.PURIFIED,
    )
    assert {request["artifact"] for request in requests} == {upload.canonical_digest}
    assert requests[0]["start"] is None
    assert (
        (requests[1]["start"] or {}).get("digest", "")
        == second.facts.start
        == (first.digest * bool(after))
    )
    assert second.facts.acc_before == first.facts.acc_before
    assert second.facts.parent == upload.canonical_digest
    with reading(place.guard.engine) as session:
        assert {
            artifacts.get(session, item.digest or "").parent_digest for item in (first, second)
        } == {upload.canonical_digest}
    report = report_for(place.guard, winner)
    assert report.verdict is Verdict.PURIFIED
    assert signed(place, parent)["purification"] is None
    said = signed(place, winner)["purification"]
    assert said["defenses"] == ([after] if after else []) + ["patch_unlearning"]
    assert said["acc_after"] == second.facts.acc_after.overall
    assert report.chain == f"{after}, then patch_unlearning".removeprefix(", then ")
    assert f"Purified by {report.chain} and" in report.reasons[0]
    assert place.verdicts(loser)[0].verdict is Verdict.REJECTED


@pytest.mark.parametrize("after", ["", "shared_distillation"])
def test_where_the_first_made_nothing_only_a_chain_is_skipped(
    after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_model: nn.Module) -> nn.Module:
        raise MethodFailed("It found no trigger.", code="nothing")

    place = Place(tmp_path)
    parent, requests = played(
        place, monkeypatch, fail, DefenseRule(name="patch_unlearning", after=after)
    )
    run_stage.work(place.guard, "purify", parent)
    run_stage.work(place.guard, "purify", parent)
    first, second = place.scan(parent).detail.candidates

    assert first.failed == "It found no trigger."
    assert (second.child is not None, "nothing to go on from" in (second.failed or "")) == (
        not after,
        bool(after),
    )
    assert len(requests) == 2 - bool(after)
    if after:
        run_stage.work(place.guard, "purify", parent)

        assert place.scan(parent).state is ScanState.DONE
        assert second.after == (after,)


def test_accused_images_of_the_scan_reach_the_job_and_bring_their_defenses_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    informed = DefenseRule(name="patch_unlearning", informed=True)  # played: it learns nothing
    parent, requests = played(place, monkeypatch, softened, informed)
    generator = torch.Generator().manual_seed(0)
    images = Labelled(
        torch.randint(0, 256, (30, 1, 8, 8), generator=generator, dtype=torch.uint8),
        torch.full((30,), 1),
    )
    found = AccusedImages(
        Accused(images, torch.zeros(30, dtype=torch.int64), images), Proof(images, (0.05,) * 30)
    )
    scan = place.scan(parent)
    digest = place.guard.blobs.put_bytes(packed(found))
    with transaction(place.guard.engine) as session:
        scans.move(
            session, parent, scan.state, place.clock, detail=replace(scan.detail, accused=digest)
        )
    vetted(place, parent, suspicious=True)
    (attempt,) = place.scan(parent).detail.candidates

    assert attempt.defense == "patch_unlearning"
    assert requests[0]["accused"] == str(place.guard.blobs.path(digest))
    assert attempt.facts is not None
    assert attempt.facts.suspects[0].after.trials == 30
