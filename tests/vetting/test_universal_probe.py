"""Universal perturbations of a parent, tried on a copy, where no trigger is proven."""

import copy

import pytest
import torch

from guard.core.errors import Cancelled
from guard.core.plain import from_plain, to_plain
from guard.core.purification import PurificationFacts, UniversalTransfer, summary
from guard.ml.networks.architectures import ImageModel
from guard.ml.search.families import Additions, Patches
from guard.ml.seeds import seeded
from guard.vetting import repair_probes, universal_probe
from tests import toys
from tests.policy.making import a_purification


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kinds of perturbation, searched for moments."""
    monkeypatch.setattr(universal_probe, "kinds", lambda: (Patches(), Additions()))
    monkeypatch.setattr(universal_probe, "WINDOWS", 4)


@pytest.fixture(scope="module")
def parent() -> ImageModel:
    return toys.network().eval()


def tried(parent: ImageModel, child: ImageModel) -> tuple[UniversalTransfer, ...]:
    with seeded(0):
        return universal_probe.transferred(parent, child, toys.curated(), lambda _done: None)


def constant(model: ImageModel) -> ImageModel:
    """A copy that answers the first class, whatever the image."""
    child = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in child.parameters():
            parameter.zero_()
    return child


def test_on_an_untouched_copy_whatever_worked_still_does(parent: ImageModel) -> None:
    patches, additions = found = tried(parent, parent)

    assert (patches.kind, additions.kind) == ("patches", "additions")
    assert patches.worked > 0
    for one in found:
        assert (one.classes, one.kept) == (toys.CLASSES, one.worked)
        assert one.before == one.after
    assert tried(parent, parent) == found


def test_a_copy_that_obeys_none_keeps_none(parent: ImageModel) -> None:
    found = tried(parent, constant(parent))

    assert sum(one.worked for one in found) == sum(one.worked for one in tried(parent, parent))
    assert sum(one.kept for one in found) <= len(found)  # only those towards the first class


def test_where_no_trigger_is_proven_the_proof_holds_it_and_names_what_is_missing(
    parent: ImageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair_probes, "_share", lambda *_args: None)
    proof = repair_probes.prove(parent, parent, toys.curated(), [], blind=True)
    informed = repair_probes.prove(parent, parent, toys.curated(), [])

    assert len(proof.universal) == 2
    assert "none could be replayed" in proof.unproved[0]
    assert (informed.universal, informed.unproved) == ((), ())


def test_what_runs_out_of_time_is_named_and_cancelling_ends_it(
    parent: ImageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair_probes, "_share", lambda *_args: None)
    late = repair_probes.prove(parent, parent, toys.curated(), [], blind=True, seconds=-1.0)
    assert late.universal == ()
    assert any("universal perturbations could not be" in sentence for sentence in late.unproved)

    def cancel(done: float, note: str = "") -> None:
        del done, note
        raise Cancelled("Somebody stopped it.")

    with pytest.raises(Cancelled):
        repair_probes.prove(parent, parent, toys.curated(), [], blind=True, progress=cancel)


def test_the_kinds_include_those_that_the_repair_does_not_learn_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    names = {type(kind).__name__ for kind in universal_probe.kinds()}

    assert {"Patches", "Blends", "Waves"} <= names


def test_the_facts_survive_json_and_the_statement_repeats_them() -> None:
    one = UniversalTransfer(kind="patches", classes=10, worked=9, kept=2)
    facts = a_purification(blind=True, universal=(one,))

    assert from_plain(PurificationFacts, to_plain(facts)) == facts
    assert summary(facts).universal == (one,)
    assert "universal" not in to_plain(a_purification())
