"""D-ST draws only trusted images of a label together, and turns its classifier from suspects."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from guard.core.errors import InputError, MethodFailed
from guard.ml.networks import heads
from guard.ml.training.contrastive import contrastive_loss, positives
from guard.retrainers import _features, d_st
from guard.retrainers._base import Retrained
from guard.retrainers._counterexamples import (
    Counterexamples,
    clean_minus_poisoned,
    unlikelihood,
)
from guard.retrainers.d_st import DSt
from guard.trainsets import Sifted
from tests import toys
from tests.retrainers import sets

LABELS = torch.tensor([0, 1, 0, 0, 1])
TRUSTED = torch.tensor([True, True, True, False, True])


def trained(found: Sifted, **changes: Any) -> Retrained:
    method = DSt(**{**DSt.quick(), **changes})
    return method(
        toys.manifest(),
        sets.poisoned(),
        toys.clean_set(),
        found,
        checkpoint=sets.Memory(),
        seed=1,
        device="cpu",
    )


def test_views_of_one_image_are_drawn_together_whatever_it_is() -> None:
    mask = positives(LABELS, torch.zeros(5, dtype=torch.bool))

    assert mask.sum() == 10
    assert all(mask[i, (i + 5) % 10] for i in range(10))


def test_trusted_images_of_a_label_are_drawn_together_and_no_view_to_itself() -> None:
    mask = positives(LABELS, TRUSTED)

    assert mask[0].tolist() == [False, False, True, False, False, True, False, True, False, False]
    assert not mask.diagonal().any()
    assert torch.equal(mask, mask.T)


def test_a_suspect_is_in_no_other_images_row_or_column() -> None:
    mask = positives(LABELS, TRUSTED)
    suspect = [3, 8]

    assert mask[suspect].sum() == 2
    assert mask[:, suspect].sum() == 2
    assert mask[3, 8]


def test_the_loss_does_not_depend_on_the_order_of_images_or_the_names_of_classes() -> None:
    features = torch.randn(10, 7, generator=torch.Generator().manual_seed(0)).double()
    order = torch.tensor([4, 2, 0, 3, 1])
    renamed = torch.tensor([3, 0])[LABELS]

    def loss(labels: torch.Tensor, trusted: torch.Tensor, rows: torch.Tensor) -> float:
        mask = positives(labels, trusted)
        return float(contrastive_loss(rows, mask, temperature=0.1, base=0.07))

    first = loss(LABELS, TRUSTED, features)
    assert first == loss(renamed, TRUSTED, features)
    moved = features[torch.cat([order, order + 5])]
    assert first == pytest.approx(loss(LABELS[order], TRUSTED[order], moved), rel=1e-12)


def test_the_loss_is_that_of_the_formula() -> None:
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()
    mask = positives(torch.tensor([0, 0]), torch.tensor([True, True]))
    unit = features / features.norm(dim=1, keepdim=True)
    wanted = 0.0
    for i in range(4):
        others = [k for k in range(4) if k != i]
        below = math.log(sum(math.exp(float(unit[i] @ unit[k]) / 0.1) for k in others))
        wanted -= sum(float(unit[i] @ unit[p]) / 0.1 - below for p in others) / 3
    wanted *= (0.1 / 0.07) / 4

    found = contrastive_loss(features, mask, temperature=0.1, base=0.07)

    assert float(found) == pytest.approx(wanted, rel=1e-9)


def test_a_batch_without_suspects_is_plain_cross_entropy() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    all_clean = torch.ones(5, dtype=torch.bool)

    assert clean_minus_poisoned(logits, LABELS, all_clean, 0.5) == cross_entropy(logits, LABELS)


def test_a_batch_without_trusted_images_only_turns_away() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    wanted = -0.5 * float(cross_entropy(logits, LABELS))
    logits.requires_grad_()
    none_clean = torch.zeros(5, dtype=torch.bool)

    loss = clean_minus_poisoned(logits, LABELS, none_clean, 0.5)
    loss.backward()

    assert float(loss.detach()) == pytest.approx(wanted)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("head", ["logistic", "sgd"])
def test_the_backdoor_is_not_learnt_although_its_images_are_seen(head: str) -> None:
    made = trained(sets.sift(), head=head)

    assert toys.success(made.model) < 0.2
    assert made.numbers["suspects"] == len(sets.sift().suspects)


def test_poison_that_no_sift_found_is_not_believed() -> None:
    made = trained(sets.sift(suspects=False))

    honest = sets.IMAGES - sets.POISONED - len(sets.sift().trusted)
    assert made.numbers["suspects"] == 0
    assert honest / 2 < made.numbers["believed"] <= honest + sets.POISONED / 10
    assert toys.success(made.model) < 0.2


def test_its_classifier_by_steps_needs_no_suspects() -> None:
    assert trained(sets.sift(suspects=False), head="sgd").numbers["suspects"] == 0


def test_without_passes_at_last_it_ends_with_the_classifier() -> None:
    made = trained(sets.sift(), tune_epochs=0)

    assert made.numbers["believed"] == 0
    assert toys.success(made.model) < 0.2


def test_labels_are_believed_that_are_as_possible_as_those_of_calibration_images() -> None:
    model, clean, train = toys.network(), toys.clean_set(), sets.poisoned()
    places = np.arange(len(train))

    own = [
        _features.agreeing(model, train, clean, places, lost=lost).sum()
        for lost in (0.0, 0.05, 1.0)
    ]

    labels = torch.from_numpy(train.labels)
    chance = model(torch.from_numpy(train.rows(places)).float() / 255).softmax(1)
    chance = chance.gather(1, labels[:, None])[:, 0]
    held = model(clean.calibration.floats()).softmax(1)
    held = held.gather(1, clean.calibration.labels[:, None])[:, 0]
    assert own[0] == int((chance >= held.min()).sum())
    assert own[2] == int((chance >= held.max()).sum())
    assert own[0] >= own[1] >= own[2]


def test_unlikelihood_is_that_of_the_formula_and_vanishes_where_nobody_obeys() -> None:
    logits = torch.tensor([[3.0, 0.0, 1.0], [-60.0, 0.0, 1.0]], requires_grad=True)
    labels = torch.tensor([0, 0])
    chance = float(logits.detach()[0].softmax(0)[0])

    value = unlikelihood(logits, labels)
    value.backward()

    assert float(value.detach()) == pytest.approx(-math.log(1 - chance) / 2, rel=1e-5)
    assert logits.grad is not None
    assert float(logits.grad[0, 0]) == pytest.approx(chance / 2, rel=1e-5)
    assert float(logits.grad[1].abs().max()) < 1e-9
    assert math.isfinite(float(unlikelihood(torch.tensor([[200.0, 0.0]]), labels[:1])))


def test_suspects_are_drawn_beside_a_batch_and_turn_the_network_from_their_label() -> None:
    train, seen = sets.watched(sets.poisoned())
    images = toys.labelled(32, 7).floats()
    layer = nn.Sequential(nn.Flatten(), nn.LazyLinear(toys.CLASSES))
    accused = Counterexamples(
        train=train, places=np.arange(10), share=0.25, change=lambda images: images
    )
    layer(images)
    for weights in layer.parameters():
        nn.init.zeros_(weights)  # all classes are as likely, whatever the test's seed is
    logits, first = accused.beside(layer, images)

    assert logits.shape == (32, toys.CLASSES)
    assert torch.allclose(logits, layer(images))
    assert seen <= set(range(10))
    steps = torch.optim.SGD(layer.parameters(), 0.05)
    for _ in range(40):
        steps.zero_grad()
        accused.beside(layer, images)[1].backward()
        steps.step()
    assert float(accused.beside(layer, images)[1].detach()) < 0.5 * float(first.detach())


@pytest.mark.parametrize(("places", "share"), [(0, 0.25), (10, 0.001)])
def test_without_suspects_nothing_is_added(places: int, share: float) -> None:
    images = toys.labelled(32, 7).floats()
    layer = nn.Sequential(nn.Flatten(), nn.LazyLinear(toys.CLASSES))
    accused = Counterexamples(
        train=sets.poisoned(), places=np.arange(places), share=share, change=lambda images: images
    )

    logits, added = accused.beside(layer, images)

    assert torch.equal(logits, layer(images))
    assert float(added) == 0


def test_steps_of_the_classifier_leave_the_extractor_as_it_was() -> None:
    one, two = (
        trained(sets.sift(), head="sgd", head_epochs=count, tune_epochs=0).model.state_dict()
        for count in (1, 3)
    )
    moved = {name for name in one if not torch.equal(one[name], two[name])}

    assert moved == {"inner.linear.weight", "inner.linear.bias"}


def test_an_image_that_is_accused_is_not_trusted() -> None:
    found = sets.sift()
    both = Sifted(
        suspects=found.suspects,
        proof=found.proof,
        trusted=np.concatenate([found.trusted, found.suspects, found.proof]),
        relabelled=found.relabelled,
    )

    assert trained(both).numbers["trusted"] == len(found.trusted)


def test_the_classifier_can_be_fitted_to_a_part_of_a_large_set() -> None:
    assert sets.same_weights(
        trained(sets.sift(), head_images=40).model, trained(sets.sift(), head_images=40).model
    )


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(InputError, match="logistic, sgd"):
        DSt(head="forest")


def test_a_class_that_nobody_trusts_is_named() -> None:
    found = sets.sift()
    labels = sets.poisoned().labels
    few = Sifted(
        suspects=found.suspects,
        proof=found.proof,
        trusted=found.trusted[labels[found.trusted] != 1],
        relabelled=found.relabelled,
    )

    with pytest.raises(MethodFailed, match="trusts of every class; class 1 has 0"):
        trained(few)


def seen(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return torch.randn(count, 4, generator=generator) + 2 * torch.eye(3, 4)[labels], labels


def parts(layer: nn.Linear) -> heads.Head:
    weight, bias = layer.parameters()
    return weight, bias


def test_the_classifier_has_the_least_loss() -> None:
    layer = torch.nn.Linear(4, 3)
    good, labels = seen(60, 0)
    bad, bad_labels = seen(9, 1)
    with torch.no_grad():
        clean = (good, layer(good), labels)
        poisoned = (bad, layer(bad), bad_labels)
    head = parts(layer)

    assert heads.fit_against(head, clean, poisoned, against=0.1, decay=0.01)

    def loss() -> torch.Tensor:
        cost = 0.005 * float(good.double().var(0).mean()) * layer.weight.square().sum()
        return (
            cross_entropy(layer(good), labels) - 0.1 * cross_entropy(layer(bad), bad_labels) + cost
        )

    gradients = torch.autograd.grad(loss(), [layer.weight, layer.bias])
    assert max(float(one.abs().max()) for one in gradients) < 1e-4


def test_suspects_move_the_classifier_away_from_them() -> None:
    good, labels = seen(60, 0)
    bad = torch.full((20, 4), 1.5)
    chances = []
    for weight in (0.0, 0.2):
        layer = torch.nn.Linear(4, 3)
        with torch.no_grad():
            clean = (good, layer(good), labels)
            poisoned = (bad, layer(bad), torch.zeros(20, dtype=torch.int64))
        heads.fit_against(parts(layer), clean, poisoned, against=weight, decay=0.01)
        chances.append(float(layer(bad).detach().softmax(1)[:, 0].mean()))

    assert chances[1] < chances[0]


def test_a_layer_that_is_followed_by_another_operation_is_left_alone() -> None:
    layer = torch.nn.Linear(4, 3)
    before = layer.weight.detach().clone()
    good, labels = seen(60, 0)
    clean = (good, torch.zeros(60, 3) + 5, labels)

    assert not heads.fit_against(
        parts(layer), clean, (good[:0], clean[1][:0], labels[:0]), against=0, decay=1
    )
    assert torch.equal(layer.weight, before)


def test_a_network_without_a_classifier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_features, "layer_of", lambda model, clean: None)
    with pytest.raises(MethodFailed) as refused:
        trained(sets.sift())

    assert refused.value.code == "no_head"


def test_a_classifier_that_cannot_be_solved_names_the_other_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(d_st, "fit_against", lambda *args, **kwargs: False)
    with pytest.raises(MethodFailed, match="use head=sgd") as refused:
        trained(sets.sift(), epochs=1)

    assert refused.value.code == "no_head"
