"""What a child is asked beyond its parent's triggers, on a small network with a planted corner."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch

from guard.core.errors import Cancelled
from guard.core.plain import from_plain, to_plain
from guard.core.purification import PurificationFacts, Relearned, summary
from guard.ml.networks.architectures import ImageModel
from guard.ml.seeds import seeded
from guard.ml.triggers import BlendTrigger, PatchTrigger
from guard.ml.triggers.files import serialise
from guard.vetting.repair_probes import MOST_TARGETS, Proof, Replay, prove
from tests import toys
from tests.policy.making import a_purification


def corner(side: int = 3) -> PatchTrigger:
    mask = torch.zeros(1, toys.SIZE, toys.SIZE)
    mask[:, -side:, -side:] = 1
    return PatchTrigger(mask, torch.ones(1, toys.SIZE, toys.SIZE))


def replay(target: int = toys.TARGET, side: int = 3) -> Replay:
    return Replay(target=target, digest="x", data=serialise(corner(side)))


def healed(model: ImageModel) -> ImageModel:
    """The network taught to answer rightly under the bright corner."""
    child, data = copy.deepcopy(model).train(), toys.labelled(240, 1)
    images = torch.cat([data.floats(), toys.stamped(data.images).float() / 255])
    labels = data.labels.repeat(2)
    with seeded(0):
        optimiser = torch.optim.Adam(child.parameters(), lr=5e-3)
        for _ in range(40):
            index = torch.randint(len(labels), (64,))
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(child(images[index]), labels[index]).backward()
            optimiser.step()
    return child.eval()


@pytest.fixture(scope="module")
def parent() -> ImageModel:
    return toys.network().eval()


@pytest.fixture(scope="module")
def untouched(parent: ImageModel) -> Proof:
    return prove(parent, parent, toys.curated(), [replay(side=4), replay()])


def test_a_child_that_was_not_repaired_obeys_fresh_patches_as_its_parent_does(
    untouched: Proof,
) -> None:
    (sample,) = untouched.resampled  # the smaller of the two patches of one class

    assert sample.before == sample.after
    assert sample.after.low > 0.5
    assert sample.after.budget == 18
    assert sample.after.trials == 150
    assert untouched.relearned[0].lead > 0.5
    assert untouched.reactivated[0].stamped.estimate > 0.9
    assert untouched.shared is not None
    assert untouched.shared.before == untouched.shared.after > 0
    assert untouched.unproved == ()


def test_a_repaired_child_does_not_and_the_same_seed_says_the_same(parent: ImageModel) -> None:
    child = healed(parent)
    found, again = (prove(parent, child, toys.curated(), [replay()], seed=5) for _ in range(2))

    assert found == again
    assert found.resampled[0].before.low > 0.5 > found.resampled[0].after.high
    assert found.relearned[0].asr[0] < 0.2
    assert found.shared is not None
    assert found.shared.after < found.shared.before


def test_where_a_distribution_does_not_work_on_the_parent_new_searches_are_asked(
    parent: ImageModel,
) -> None:
    child = healed(parent)
    found = prove(child, child, toys.curated(), [replay()])

    assert found.resampled[0].searches > 0
    assert found.resampled[0].before == found.resampled[0].after
    assert found.unproved == ()
    assert len(found.relearned) == 1


def test_other_families_and_more_classes_than_are_looked_at_are_named(parent: ImageModel) -> None:
    blend = BlendTrigger(torch.tensor(0.2), torch.rand(1, toys.SIZE, toys.SIZE))
    replays = [
        Replay(target=0, digest="y", data=serialise(blend)),
        *map(replay, range(MOST_TARGETS + 1)),
    ]
    found = prove(parent, parent, toys.curated(), replays, seconds=0)

    assert (found.resampled, found.relearned) == ((), ())
    assert "is no patch (blend)" in found.unproved[0]
    assert any(f"class {MOST_TARGETS} was not" in words for words in found.unproved)
    assert sum("ran out of" in words for words in found.unproved) == 3 * MOST_TARGETS + 1
    assert found.reactivated == ()


def test_cancelling_ends_it(parent: ImageModel) -> None:
    def stop(done: float, note: str = "") -> None:
        raise Cancelled("A person said so.")

    with pytest.raises(Cancelled):
        prove(parent, parent, toys.curated(), [replay()], progress=stop)


def test_facts_survive_json_and_older_facts_have_no_proof(untouched: Proof) -> None:
    found = tuple(replace(one, searches=8) for one in untouched.resampled)
    facts = a_purification(
        resampled=found,
        relearned=untouched.relearned,
        reactivated=untouched.reactivated,
        shared=untouched.shared,
        unproved=("Because.",),
        after=("fst", "nad"),
        start="d" * 64,
    )
    stored = json.loads(json.dumps(to_plain(facts), allow_nan=False))
    older = {
        key: value
        for key, value in stored.items()
        if key not in {"resampled", "relearned", "woken", "shared", "unproved", "after", "start"}
    }

    assert from_plain(PurificationFacts, stored) == facts
    assert facts.chain == "fst, then nad, then sau"
    assert isinstance(from_plain(PurificationFacts, older), PurificationFacts)
    assert from_plain(PurificationFacts, older).relearned == ()
    assert from_plain(PurificationFacts, older).chain == "sau"


def test_a_lead_that_could_not_be_measured_is_signed_as_unknown() -> None:
    broken = Relearned(
        target=1,
        family="patch",
        budget=9.0,
        images=10,
        steps=(0, 2),
        asr=(0.0, math.nan),
        rivals=((0.0, 0.1),),
    )
    whole = replace(broken, asr=(0.0, 0.6), leads=(0.4, math.nan))
    said = json.loads(
        json.dumps(to_plain(summary(a_purification(relearned=(broken, whole)))), allow_nan=False)
    )

    assert said["relearned"] == [
        {"target": 1, "lead": None, "leads": []},
        {"target": 1, "lead": 0.5, "leads": [0.4, None]},
    ]
